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
_RULED_OUT = re.compile(
    r"(?i)(?:\bnot|n't|n’t|\brules? out|\bwrong|\bnever|\bexclude[sd]?|instead of|because|since)\W+(?:\w+\W+){0,2}$"
)


def choice(part: str, gold: str) -> Said | None:
    """The choice letter that an answer's text names in prose, where the gold is one; else None."""
    letter = LETTER.fullmatch(gold)
    if not letter:
        return None
    part = part.strip()
    named = [m[1] for m in _CHOICE_CUE.finditer(part) if (re.match("(?i)leav", m[0]) or not _ruled_out(part, m))
             and not _offered(part[m.end() :])]
    named += [m[1] for m in _CORRECT.finditer(part) if not _RULED_OUT.search(part[max(0, m.start() - 30) : m.start()])]
    answers = [m for m in ANSWER_CUE.finditer(part)]
    lead = _LEAD.match(part)
    last = re.search(r"\b(?:so|therefore|thus|hence)\b[^.\n]*?\b(?:it is|it's|is)\s*\(?([A-J])\)?\W*$", part)
    if answers and not any(m.end() >= answers[-1].start() for m in _CHOICE_CUE.finditer(part)):
        named = []  # the last answer says something else
    found = named[-1] if named else last[1] if last else (lead[1] or lead[2]) if lead else None
    if answers and named:
        after = [m for m in _CHOICE_CUE.finditer(part) if m.end() > answers[-1].start()]
        leaving = [m for m in after if re.match(r"(?i)leav", m[0])]
        found = leaving[0][1] if leaving else after[0][1] if after and not _ruled_out(part, after[0]) else found
    if found is None:
        return None
    return Said(found if letter[1].isupper() else found.lower(), "choice")


def _ruled_out(part: str, cue: re.Match) -> bool:
    return bool(_RULED_OUT.search(part[max(0, cue.start() - 30) : cue.start()]))


def _offered(after: str) -> bool:
    """Does an alternative or a denial follow a letter: A or B, A/B, A is wrong?"""
    return bool(
        re.match(r"[)\]}$*]*\s+(?:is|was|are)\s+(?:wrong|false|incorrect|not|never)|[)\]}$*]*\s+(?:isn't|fails)", after)
    ) or bool(re.match(r"[)\]}$*]*\s*(?:,?\s*(?:or|and)\b|/)\s*[($*]*[A-J]\b", after))
