"""What answer does prose state? Only one that is said as an answer: after a cue, not denied, not one of several.

`read` takes the last sentence that says "the answer is", "answer:", "so", "in total", … and the number in it.
A sentence that denies ("cannot be 64"), offers two ("63 or 64") or hedges ("perhaps 64", "more than 64") states no
answer. Reasons behind an answer ("is 12 because 3 rows of 4 …") are not read.
"""

import re
from typing import NamedTuple

ANSWER_CUE = re.compile(
    r"(?:final\s+answer|answer|réponse|antwort|respuesta|答案|(?:wait|sorry|actually)\W{1,3}it)\b\W{0,4}?"
    r"(?:\s+(?:is|are|est|ist|es|should be|must be)\b|\s*[:：]|\s*是|"
    r"\s+(?=[$\\(\d-]))\s*:?(?:\s*(?:the\s+)?(?:final\s+)?answer\s+is\b)?"
    r"|(?m:^A\s*:)",
    re.IGNORECASE,
)
CUE = re.compile(
    r"(?i:\b(?:that (?:is|makes|gives|leaves)|which (?:is|gives|makes|leaves)|(?:comes?|amounts?|adds? up) to|"
    r"(?:result|total|sum|solution|"
    r"value|cost|number|product|difference|probability|ratio|area|length|price|remainder|gap|matrix|perimeter|"
    r"volume)\b[^.!?\n]{0,120}?\b(?:is|are|was|of|=)|"
    r"so|thus|hence|therefore|finally|in conclusion|altogether|in (?:all|total)|it follows that|gives?|gets?|"
    r"finds?|found|obtains?|concludes?|equals?|makes?|leaving|"
    r"total|has|have|needs?|costs?|there (?:is|are|were|will be)|is|are|donc|coût|est|soucis|en total|"
    r"remain(?:s|ing)?|left)\b)"
    r"|[=:：→]|因此|所以|一共|共|是|为|為|इसलिए|لذا|है|هو"
)
_STRONG = re.compile(
    r"(?i)leaving|so|thus|hence|therefore|donc|(?:that|which) \w+|(?:comes?|amounts?|adds? up) to|"
    r".*\b(?:is|are|was|of|est)|.*=|[=]"
)
_HEDGE = re.compile(
    r"(?i)\b(?:either|neither|nor|or|maybe|perhaps|possibly|probably|likely|guess(?:ed)?|unsure|uncertain|could|"
    r"might|may be|would|unless|"
    r"if|greater|larger|bigger|smaller|less|fewer|more|higher|lower|above|below|between|at least|at most|up to|"
    r"almost|nearly|"
    r"roughly|around|about|over|under|exceeds?|except|wrong|incorrect|false|thought|said|cannot tell)\b|[<>≤≥±]|"
    r"\\(?:pm|le|ge|lt|gt|leq|geq|neq|ne)\b"
)
_DOUBT = re.compile(
    r"(?i)\b(?:doubt\w*|unlikely|wonder|whether|suspect|hope|deny|refuse|wrongly|mistaken\w*|"
    r"some (?:people )?(?:say|think))\b"
)
_TAKEN_BACK = re.compile(
    r"(?i)\b(?:not (?:sure|right|correct|certain)|unsure|wrong|incorrect|mistake|guess\w*|cannot|can't|"
    r"do(?:es)?(?:n't| not)|isn't|"
    r"just kidding|no answer|on second thought|impossible)\b"
)
_DENIAL = re.compile(r"(?i)\b(?:not|never|cannot|can't|isn't|aren't|wasn't|can’t|isn’t|impossible)\b|n't\b|n’t\b")
_REASON = re.compile(
    r"(?i)(?:\s*,)?\s*\b(?:because|since|which(?! (?:gives|makes|leaves|means|equals|totals|comes))|as (?:is|it|the|"
    r"\d|we|can)|so that|where|note that|instead of|rather than|given that|but not|and not|"
    r"after|while|whereas)\b|,\s*(?:not|less|more|for)\b|\s\((?=[^)]*\))|\s(?:and this|and that)\b"
)
_MATH = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$((?:[^$\n]|\\\$){0,500}?[^$\s\\+*/=-])\s?(?<!\\)\$(?!\d)|"
    r"\\\((.{1,500}?)\\\)|\\\[(.{1,2000}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"\d{1,40}_\{?\d{1,2}\}?|-?\\[dt]?frac\{\d{1,20}\}\{\d{1,20}\}"
    r"|(?:(?<![\w.,/])[-+]|(?<![\w.,/+-]))(?:[€£₹]|\\?\$(?=\d))?(?:\d{1,3}(?:,\d{3})+(?!\d)|"
    r"\d{1,60})(?:[.,]\d{1,40})?(?:\s?/\s?\d{1,40}|:\d{2}(?!\d))?"
    r"(?!\w*\d)(?:\s?%|\s?[€£]|\s(?:hundred|thousand|million|billion|trillion)\b)?",
    re.ASCII,
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE_END = re.compile(r"\n|(?<=[.!?])(?<!\b[A-Z]\.)(?<!approx\.)(?<!sq\.)(?:\$\$|\\\]|\*\*)?\s+|(?<=[。！？])")


class Said(NamedTuple):
    """`answer`, or None; `rule`: what in the text decided."""

    answer: str | None
    rule: str


def is_heading(line: str) -> bool:
    """Is a line after #### the heading of a section, not an answer?"""
    return bool(re.search(r"(?i)[^\W\d_]{3,}", line)) and (
        not re.match(r"\s*[$€£\\(]*-?\d", line) or bool(re.match(r"\s*\d{1,2}[.)]\s+[A-Z]", line))
    )


def read(part: str, strict: bool) -> Said:
    """The answer that a text without a box states."""
    part = _undressed(part)
    if (whole := _whole(part)) is not None:
        return Said(whole, "the whole text")
    cues = list(ANSWER_CUE.finditer(part))
    if cues:
        if part[max(0, cues[-1].start() - 1) : cues[-1].start()] == "'" and len(cues) > 1:
            cues.pop()
        said = _statement(part[cues[-1].end() :], first=True)
        if said.answer or not re.match(r"\s*$", part[cues[-1].end() :]):
            return said
    sentences = [s for s in (piece.strip() for piece in _SENTENCE_END.split(part[-2000:])) if re.search(r"\w", s)]
    if not sentences:
        return Said(None, "no sentence")
    if len(sentences) > 1 and not re.search(r"\d|\$|\\[(\[]", sentences[-1]):
        if strict and _TAKEN_BACK.search(sentences[-1]):
            return Said(None, "a last sentence that takes it back")
        sentences.pop()
    said = _last_sentence(sentences[-1], part, strict)
    if said.answer is None and said.rule in ("no number", "no cue", "several numbers") and not strict:
        return _last_number(part[-2000:])
    return said


def _last_number(part: str) -> Said:
    """The last formula or number of a text, as benchmarks without a fixed form of answers take it."""
    last = None
    for pattern in (_MATH, _NUMBER):
        for match in pattern.finditer(part):
            if pattern is _MATH and "\\" not in match[0] and len(_WORD.findall(match[0])) > 1:
                continue  # two prices with words between them
            if not last or (match.end() > last.end() and match.start() > last.start()):
                last = match
    if not last:
        return Said(None, "no number")
    return Said(_inside(last) if last.re is _MATH else last[0].strip().rstrip(","), "the last number")


def read_tag(content: str) -> Said:
    """The answer inside <answer>: as it stands, or what a sentence in it states."""
    whole = _MATH.fullmatch(content)
    inner = _inside(whole) if whole else content
    if len(_WORD.findall(re.sub(r"\\[a-zA-Z]+", "", inner))) <= 2 and not _MATH.search(inner):
        return Said(inner, "answer tag")
    said = read(content, strict=True)
    return said if said.answer else Said(content, "answer tag")


def _undressed(part: str) -> str:
    """A text without quotation marks and Markdown around it."""
    part = re.sub(r"[^\S\n]+", " ", part.replace('\\"', '"')).strip()
    part = re.sub(r"^(?:>\s?)+", "", part)
    return part.strip(' \n`"“”').replace("“", '"').replace("”", '"')


def _whole(part: str) -> str | None:
    """A text that is nothing but its answer: one formula, or a few words or signs."""
    whole = _MATH.fullmatch(part.strip("*. "))
    if whole and not re.search(r"(?<!\\)\$", _inside(whole)):
        return _inside(whole)
    formula = _MATH.match(part)
    if (
        formula
        and re.fullmatch(r"\s*(?:%|[A-Za-z]{1,12}\s?){1,2}\.?", part[formula.end() :])
        and not _HEDGE.search(part[formula.end() :])
    ):
        return f"{_inside(formula)} {part[formula.end() :].strip(' .')}"
    if len(part) <= 200 and "\n" not in part and not _MATH.search(part):
        words = _WORD.findall(re.sub(r"\\[a-zA-Z]+", "", part))
        if _DENIAL.search(part) or (_HEDGE.search(part) and re.search(r"\d", part) and words):
            return None
        limit = 3 if not re.search(r"\d", part) else 1 if re.match(r"[-+$(]*\d", part) else 0
        if len(words) <= limit and not ANSWER_CUE.search(part):
            return part.rstrip(". !")
    return None


def _statement(rest: str, first: bool) -> Said:
    """What follows "the answer is"."""
    rest = rest.strip().lstrip('*": }').replace("**", "")
    rest = re.sub(
        r"^\s*(?:therefore|thus|then|hence|simply|just|clearly|indeed|exactly|now|definitely|surely|"
        r"only)\s+(?=[\d$\\(-])",
        "",
        rest,
    )
    formula = _MATH.match(rest)
    if formula:
        after = rest[formula.end() :]
        more = re.match(r"\s*(?:,|and|or|,\s*and|,\s*or)\s*", after)
        second = more and _MATH.match(rest, formula.end() + more.end())
        if second:
            return Said(f"{_inside(formula)}, {_inside(second)}", "after a cue")
        if re.match(r"\s*,?\s*(?:or|if|unless|maybe|perhaps|plus|minus|times)\b", after):
            return Said(None, "an alternative")
        return Said(_inside(formula), "after a cue")
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0].strip().rstrip(".!。 ")
    if not sentence:
        return Said(None, "nothing after the cue")
    sentence = sentence.strip('"')
    if re.fullmatch(r"[-+\d\s/*().,^=]+", sentence) or (len(sentence.split()) <= 2 and not _HEDGE.search(sentence)):
        return Said(sentence.rstrip(","), "after a cue")
    clause = _REASON.split(sentence, maxsplit=1)[0].strip()
    if re.search(r"\d", sentence) and not re.search(r"\d|\$", clause):
        clause = sentence
    if _open(clause) or re.search(r"(?i)^\s*(?:or|and)\s+\S*\d", sentence[len(clause) :]):
        return Said(None, "a denial, a hedge or an alternative")
    return _number_in(clause, first=first) or (
        Said(None, "no number after the cue") if re.search(r"\d", clause) else Said(clause, "after a cue")
    )


def _open(clause: str) -> bool:
    """Does a clause deny or hedge its number, or offer another? Formulas and what stands before the verb aside."""
    plain = _MATH.sub(" § ", clause)
    verbs = [
        m for m in re.finditer(r"(?i)\b(?:is|are|est|equals?|ist)\b|=", plain) if re.search(r"[\d§]", plain[m.end() :])
    ]
    plain = plain[verbs[-1].end() :] if verbs else plain
    return bool(_DENIAL.search(plain) or _HEDGE.search(plain))


def _number_in(clause: str, first: bool) -> Said | None:
    """The number or formula that a clause states: behind its last "=", or behind "is", or the only one."""
    clause = clause.replace("**", "").rstrip(" .。!")
    formulas = [m for m in _MATH.finditer(clause) if "\\" in m[0] or len(_WORD.findall(m[0])) <= 1]
    masked = clause
    for m in formulas:
        masked = masked[: m.start()] + "§" * len(m[0]) + masked[m.end() :]
    numbers = list(_NUMBER.finditer(masked))
    places = sorted([*formulas, *numbers], key=lambda m: m.start())
    if not places:
        return None
    verbs = list(re.finditer(r"(?i)\b(?:is|are|est|equals?|that is|es|ist)\b|=", masked))
    behind = [m for m in places if verbs and m.start() >= verbs[-1].end()]
    chosen = behind[0] if behind else places[0] if first else places[-1]
    if chosen in formulas:
        return Said(_inside(chosen), "after a cue")
    return Said(chosen[0].strip().rstrip(","), "after a cue")


def _last_sentence(sentence: str, part: str, strict: bool) -> Said:
    """The answer of a text that never says "answer": the number its last sentence ends in."""
    clause = _REASON.split(sentence, maxsplit=1)[0]
    if re.search(r"\d", clause) and CUE.search(clause) and not _DENIAL.search(clause):
        sentence = clause
    cues = list(CUE.finditer(sentence))
    formulas = [m for m in _MATH.finditer(sentence) if "\\" in m[0] or len(_WORD.findall(m[0])) <= 1]
    display = list(_MATH.finditer(part[-2000:]))
    if display and display[-1].end() >= len(part[-2000:].rstrip(" .")) - 1 and not formulas:
        return Said(_inside(display[-1]), "the last formula")
    start = 0
    strong = [cue for cue in cues if _STRONG.fullmatch(cue[0])]
    if strong and re.search(r"\d|§|\$|\\[(\[]", sentence[strong[-1].end() :]):
        start = strong[-1].end()
    clause = _REASON.split(sentence[start:], maxsplit=1)[0] if start else sentence
    if not re.search(r"\d", clause):
        clause = sentence[start:]
    before = sentence[:start]
    if _open(clause) or (not start and _open(sentence)):
        return Said(None, "a denial, a hedge or an alternative")
    if re.search(
        r"(?i)\b(?:not|cannot|never)\s+(?:be|is)?\s*$|\b(?:maybe|perhaps|either|guess)\b", before[-40:]
    ) or _DOUBT.search(before):
        return Said(None, "a denial, a hedge or an alternative")
    masked = clause
    for m in _MATH.finditer(clause):
        if "\\" in m[0] or len(_WORD.findall(m[0])) <= 1:
            masked = masked[: m.start()] + "§" * len(m[0]) + masked[m.end() :]
    values = {re.sub(r"[\s$,€£]", "", m[0]) for m in _NUMBER.finditer(masked)} | {
        m[0] for m in formulas if m[0] in clause
    }
    if strict and not cues:
        return Said(None, "no cue")
    if strict and len(values) > 1 and not re.search(r"=\s*[^=]*$", masked) and not start:
        return Said(None, "several numbers")
    said = _number_in(clause, first=bool(start) and "=" not in masked)
    return Said(said.answer, "the last sentence") if said else Said(None, "no number")


def _inside(match: re.Match) -> str:
    return next(g for g in match.groups() if g is not None).strip()
