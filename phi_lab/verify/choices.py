"""Which choice letter does prose name? Only one behind "the answer is", "I choose", …, or at the head of the text."""

import re

from phi_lab.verify.phrases import ANSWER_CUE
from phi_lab.verify.prose import Said

LETTER = re.compile(r"[\s$]*(?:\\\w+\{)*\(?([A-Ja-j])\)?\}*[\s$.]*")
_CHOICE_CUE = re.compile(
    r"(?i:answer|antwort|réponse|respuesta|答案|choice|option|\bchoose|\bpick|\bleaving|\bleaves|\bit)\W{0,4}"
    r"(?:(?i:is|must be|are|is for sure|would be|ist|est)\b\W{0,6}|:\W{0,6}|'s\W{0,4}|"
    r"’s\W{0,4})?(?i:for sure )?(?:(?i:option|choice)\s*)?[$*(\[{]*([A-J])\b(?!')"
)
_CORRECT = re.compile(r"\b([A-J])\)? is (?:the )?(?:correct|right|best)(?! to\b)")
_LEAD = re.compile(r"\W{0,4}([A-J])(?:[.):](?:\s|$)|\W*$)|([A-HJ])(?=[^\x00-\x7f])")
_HEAD = re.compile(r"(?m)^[^\w\n]{0,4}([A-J])[.):](?:\s|$)")
_UNSURE = re.compile(r"(?i)\b(?:(?:can(?:not|'t|’t)|could(?:n't|n’t| not)) (?:tell|say|decide)|"
                     r"(?:do(?:n't|n’t| not)) know|not sure|unsure|no idea|guess\w*)\b")  # fmt: skip
_RULED_OUT = re.compile(
    r"(?i)(?:\bnot|n't|n’t|\brul(?:es?|ed|ing) out|\bwrong|\bnever|\bexclud(?:es?|ed|ing)|\beliminat\w+|\bdiscard\w*|"
    r"\breject\w*|\bdismiss\w*|\bcross(?:ed|ing)? out|\bskip\w*|\bignor\w+|\bremov\w+|\bavoid\w*|instead of|because|"
    r"since)\W+(?:\w+\W+){0,2}$"
)
_CONCLUSION = re.compile(
    r"\b(?:so|therefore|thus|hence)\b[^.\n]{0,120}?\b(?:it is|it's|is)\s*\(?([A-J])\)?\W*$"
)
_CLOSED = r"[)\]}$*]*"
_WRONG = (
    r"wrong|false|incorrect|tempting|invalid|eliminated|excluded|(?:ruled|crossed) out|"
    r"not (?:it|right|correct|the (?:(?:right|correct) )?(?:answer|one))"
)
_DENIED = re.compile(  # behind a letter, and behind one with its bracket: "(D) cannot be determined" denies nothing
    _CLOSED + r"\s*\?|\s+(?i:(?:is|was|are|seems?|looks?|sounds?|might|may|could|would|can|will)\s+(?:\w+\s+){0,4}?"
    rf"(?:{_WRONG}|not|never|impossible|unlikely|implausible|inconsistent)\b|"
    r"(?:is|was|are|does|do|did|has|have|ca|could|would|wo)(?:n't|n’t)|cannot\b|(?:does|do|did|has|have) (?:not|no)\b|"
    r"fail(?:s|ed)?\b|contradicts?\b|violates?\b|lacks?\b)|"
    rf"[)\]}}$*.:]+\s+(?i:(?:is|was|seems?|looks?|sounds?)\s+(?:\w+\s+){{0,3}}?(?:{_WRONG})\b|"
    r"(?:is|was)(?:n't|n’t) (?:it|right|correct|the)\b|(?:cannot|can't|can’t) be(?: right| correct| the answer)?\W*$|"
    r"does(?: not|n't|n’t) (?:work|fit|hold|apply|follow)\b|fails?\b|contradicts\b)"
)
_OR = re.compile(_CLOSED + r"\s*(?:,?\s*(?:or|and)\b|/)\s*[($*]*[A-J]\b")
_BESIDE = re.compile(  # A, C; but not the article of "C - A car" or "A, I think"
    _CLOSED + r"(?:\s*[,;&+|–—-]\s*|[ ]+)(?:(?:or|and|to|through)\s+)?[($*]*[A-J]\b"
    r"(?!['’]|\s+(?!(?:or|and|are|both|as well|to|through)\b)[a-z])"
)
_ECHO = re.compile(_CLOSED + r"(?::|\s+(?:says|states|claims|reads|suggests|gives)\b)")


def choice(part: str, gold: str) -> Said | None:
    """The choice letter that an answer's text names in prose, where the gold is one; else None."""
    letter = LETTER.fullmatch(gold)
    found = _named(part.strip()) if letter else None
    return Said(found if letter[1].isupper() else found.lower(), "choice") if letter and found else None


def _named(part: str) -> str | None:
    """The letter that a text says is the answer: behind the last "the answer is", else the last that it chooses, else
    the one it concludes with or begins with."""
    cues, answers = list(_CHOICE_CUE.finditer(part)), list(ANSWER_CUE.finditer(part))
    named = [m[1] for m in cues if (_leaves(m) or not _ruled_out(part, m)) and not _open(part, m)]
    named += [m[1] for m in _CORRECT.finditer(part) if not _RULED_OUT.search(part[max(0, m.start() - 30) : m.start()])]
    if answers and not any(m.end() >= answers[-1].start() for m in cues):
        named = []  # the last answer says something else
    if not named:
        return _concluded(part) or _lead(part)
    after = [m for m in cues if m.end() > answers[-1].start()] if answers else []
    if leaving := [m for m in after if _leaves(m)]:
        return leaving[0][1]
    if after and _open(part, after[0]):
        return None
    return after[0][1] if after and not _ruled_out(part, after[0]) else named[-1]


def denied(answer: str) -> bool:
    """Is an answer a choice letter and a denial of it: A) is wrong?"""
    letter = re.match(r"[\s$(]*(?:\\\w+\{)*\(?[A-Ja-j]\b", answer)
    return bool(letter and _DENIED.match(answer, letter.end()))


def _concluded(part: str) -> str | None:
    """The letter of a conclusion that ends a text: so it is B."""
    last = _CONCLUSION.search(part)
    return last[1] if last else None


def _lead(part: str) -> str | None:
    """The letter at the head of a text: "B) 12". None where the options are listed, the letter is the subject of a
    denial, or the text is unsure."""
    lead = _LEAD.match(part)
    if not lead:
        return None
    letter = lead[1] or lead[2]
    following = chr(ord(letter) + 1)
    listed = any(m[1] != letter for m in _HEAD.finditer(part)) or re.search(rf"\s\(?{following}[.)]\s", part)
    at = lead.end(1) if lead[1] else lead.end(2)
    return None if listed or _DENIED.match(part, at) or _UNSURE.search(part) else letter


def _leaves(cue: re.Match) -> bool:
    return bool(re.match("(?i)leav", cue[0]))


def _ruled_out(part: str, cue: re.Match) -> bool:
    return bool(_RULED_OUT.search(part[max(0, cue.start() - 30) : cue.start()]))


def _open(part: str, cue: re.Match) -> bool:
    """Does an alternative or a denial follow a letter: A or B; A, C; A/B; A is wrong? Or what an option says?"""
    bare = re.match("(?i)option|choice", cue[0]) and not re.search(r"(?i)[:'’]|\b(?:is|are|be|ist|est)\b", cue[0])
    at = cue.end()
    return bool(
        _DENIED.match(part, at) or _OR.match(part, at) or _BESIDE.match(part, at) or (bare and _ECHO.match(part, at))
    )
