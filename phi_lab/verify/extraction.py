"""Where is the final answer in what a model wrote? Text only, linear in its length.

The order: the text after `</think>` (an answer inside it is a thought, and a thought that never
closes is no answer); there the last complete `\\boxed{}`, unless a later sentence says "final
answer is"; else `<answer>`, `#### n`, "the answer is"; else all of a short text; else its last
formula or number, as the benchmarks' own graders take it.
"""

import re

UNFINISHED, UNPARSED = "unfinished", "unparsed"
TAIL = 20_000  # characters at the end of a text in which an answer without a box is looked for
_THINK = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_PLAIN_BOX = re.compile(r"\\boxed\{([^{}\\]*)\}")
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_PHRASE = re.compile(
    r"(?:final\s+answer|answer|réponse|答案|(?:wait|sorry|actually)\W{1,3}it)\b\W{0,4}?(?:\s+(?:is|are|est)\b|\s*[:：]|\s+(?=[$\\(\d-]))"
    r"\s*:?(?:\s*(?:the\s+)?(?:final\s+)?answer\s+is\b)?",
    re.IGNORECASE,
)
_MATH = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$((?:[^$]|\\\$){1,500}?)(?<!\\)\$|\\\((.{1,500}?)\\\)|\\\[(.{1,2000}?)\\\]",
    re.DOTALL,
)
_NUMBER_IN_TEXT = re.compile(
    r"-?\\frac\{\d{1,20}\}\{\d{1,20}\}"
    r"|(?<![\w.,/])[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,60})(?:[.,]\d{1,40})?(?:/\d{1,40})?(?!\w*\d)%?",
    re.ASCII,
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTER = re.compile(r"[\s$]*(?:\\\w+\{)*\(?([A-Ja-j])\)?\}*[\s$.]*")


def _answer_part(text):
    """The text after the thinking, or None while the thinking goes on."""
    for opened, closed in _THINK:
        end = text.rfind(closed)
        start = text.find(opened, end + 1)
        if start >= 0:
            return None
        if end >= 0:
            return text[end + len(closed) :]
    return text


def _boxes(part):
    """(contents of the complete boxes that hold something, is the last box unclosed?)"""
    found, stack = [], []
    for token in _BOX_TOKEN.finditer(part):
        kind = token[0]
        if kind == "}":
            if stack:
                start = stack.pop()
                if start and part[start : token.start()].strip():
                    found.append((start, part[start : token.start()].strip(), token.end()))
        elif kind == "{":
            stack.append(0)
        elif kind[1] in "bf":
            stack.append(token.end())
    return found, any(stack)


def find(text):
    """(the answer, "") or (None, why there is none)."""
    part = _answer_part(text)
    if part is None:
        return None, UNFINISHED
    last = part.rfind("\\boxed")
    if last >= 0:
        simple = _PLAIN_BOX.match(part, last)
        if simple and (answer := simple[1].strip()):
            return _final(part, simple.end()) or answer, ""
        found, unclosed = _boxes(part)
        if found:
            outer = max(found, key=lambda box: box[2])
            return _final(part, outer[2]) or outer[1], ""
        if unclosed:
            return None, UNFINISHED
        bare = re.match(r"\\boxed\s*([\w.+-]{1,100})", part[last : last + 120])
        return (bare[1], "") if bare else (None, UNPARSED)
    part = part[-TAIL:].replace("<|im_start|>user", "").replace("I hope it is correct.", "").strip()
    if not part:
        return None, UNFINISHED
    if "<answer>" in part and (tagged := part.rpartition("<answer>")[2].partition("</answer>"))[1]:
        return (tagged[0].strip(), "") if tagged[0].strip() else (None, UNPARSED)
    hashes = part.rfind("####")
    if hashes >= 0 and (line := part[hashes + 4 :].strip().partition("\n")[0].strip()):
        return line, ""
    answer = _in_prose(part)
    return (answer, "") if answer else (None, UNPARSED)


def _final(part, end):
    """The "final answer is" that comes after the last box: the later word counts."""
    return _in_prose(part[end:][-TAIL:]) if part.find("inal answer is", end) > 0 else None


def _in_prose(part):
    """The answer that a text without a box states: after "the answer is", else all of a short text,
    else its last formula or number."""
    ends = [phrase.end() for phrase in _PHRASE.finditer(part)]
    if ends:
        rest = part[ends[-1] :].replace('\\"', '"').strip().lstrip('*": ')  # a quotation mark may come escaped
        formula = _MATH.match(rest)
        if formula:
            more = re.match(r"\s*(?:,|and|or)\s*", rest[formula.end() :])
            second = more and _MATH.match(rest, formula.end() + more.end())
            return _inside(formula) + (f", {_inside(second)}" if second else "")
        sentence = re.split(r"\n|(?<=[.!?])\s|\.$|\*\*", rest, maxsplit=1)[0].strip().rstrip(".")
        if len(sentence.split()) <= 2 or re.fullmatch(r"[-+\d\s/*().,^=]+", sentence):
            return sentence
        part = sentence
    part = part.strip()
    whole = _MATH.fullmatch(part)
    if whole:
        return _inside(whole)
    if len(part) <= 200 and "\n" not in part and not _MATH.search(part):
        words = _WORD.findall(re.sub(r"\\[a-zA-Z]+", "", part))
        if len(words) <= (3 if not re.search(r"\d", part) else re.match(r"[-+$(]*\d", part) and 1 or 0):
            return part.rstrip(". ")
    part = part[-2000:]
    last = None
    for pattern in (_MATH, _NUMBER_IN_TEXT):
        for match in pattern.finditer(part):
            if pattern is _MATH and "\\" not in match[0] and len(_WORD.findall(match[0])) > 1:
                continue  # two prices with words between them
            if not last or match.end() > last.end() and match.start() > last.start():
                last = match
    return (_inside(last) if last.re is _MATH else last[0].rstrip(",")) if last else None


def _inside(match):
    return next(g for g in match.groups() if g is not None).strip()


def extract(text):
    """The final answer that a text states, as it is written, or None; never one in the thinking.
    The order is the one at the top of this module."""
    return find(text)[0]


def several(text):
    """The boxes that end a text, joined with commas, where only "and", "or" or signs stand between
    them; None where fewer than two do: with other words between, the last box is a correction."""
    part = _answer_part(text)
    chain, start = [], None
    for begin, content, end in reversed(_boxes(part)[0] if part else []):
        if start is not None:
            gap = re.sub(r"\\boxed\s*\{$", "", part[end:start])
            if len(gap) > 60 or (_WORD.search(gap) and not re.search(r"\b(?:and|or)\b", gap)):
                break
        chain.append(content)
        start = begin
    return ", ".join(reversed(chain)) if len(chain) > 1 else None


def choice(text, gold):
    """The choice letter that a text names in prose, where the gold is one; else None."""
    if not (letter := _LETTER.fullmatch(gold)) or not (part := _answer_part(text)):
        return None
    part = part[-TAIL:].strip()
    said = re.findall(
        r"(?i:answer|choice|option|\bit)\W{0,4}(?:(?i:is|must be|:)\W{0,4})?(?:for sure )?\(?([A-J])\b", part
    )
    lead = re.match(r"\W{0,4}([A-J])\b[.):]|([A-HJ])(?![A-Za-z])", part)
    last = re.findall(r"(?<![A-Za-z])([A-HJ])(?![A-Za-z'’])", part)
    named = said[-1] if said else lead[1] or lead[2] if lead else last[-1] if last else None
    return named if letter[1].isupper() or named is None else named.lower()
