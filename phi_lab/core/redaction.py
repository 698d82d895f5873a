"""What must not be shown or written down: keys, and passwords in addresses."""

import base64
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

SHORTEST = 6  # characters of a secret: shorter ones, such as a local server's "none", are in every text
HIDDEN = "***"


def is_web_address(url: str) -> bool:
    """Whether a URL can be asked over HTTP."""
    try:
        parts = urlsplit(url)
        return (url.isprintable() and parts.scheme in ("http", "https") and parts.port != 0
                and bool(re.fullmatch(r"[\w.:%-]+", parts.hostname or "")))
    except ValueError:  # a port that is no number, brackets that hold no address
        return False


def public_url(url: str) -> str:
    """A URL without its user and password, its query and its fragment."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    return scheme + slashes + re.split("[?#]", rest.rpartition("@")[2])[0]


def canonical_url(url: str) -> str:
    """A public URL in one spelling: scheme and host in lower case, no port that goes without saying, no slash at its
    end.
    """
    scheme, slashes, rest = public_url(url).rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    usual = {"http": ":80", "https": ":443"}.get(scheme.lower(), "")
    return f"{scheme.lower()}{slashes}{host.lower().removesuffix(usual)}{slash}{path}" if slashes else scheme


def url_secrets(url: str) -> list[str]:
    """The secrets in a URL: its password and query, and user and password as HTTP sends them."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), parts.password or ""
    basic = base64.b64encode(f"{user}:{unquote(password)}".encode()).decode() if password else ""
    return [basic, password, unquote(password), parts.query]


def redact(text: str, secrets: Iterable[str]) -> str:
    """A text with *** in place of its secrets."""
    for secret in sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def public_command(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without what is secret in their addresses."""
    return [re.sub(r"\w+://\S+", lambda url: public_url(url[0]), argument) for argument in arguments]
