"""What answer does prose state? Only one that is said as an answer: after a cue, not denied, not one of several.

`read` takes the last sentence that says "the answer is", "answer:", "so", "in total", … and the number in it.
A sentence that denies ("cannot be 64"), offers two ("63 or 64") or hedges ("perhaps 64", "more than 64") states no
answer. Reasons behind an answer ("is 12 because 3 rows of 4 …") are not read.
"""

import re
from typing import NamedTuple

from phi_lab.verify.phrases import (
    ALTERNATIVE,
    ANSWER_CUE,
    CUE,
    DENIAL,
    DOUBT,
    GOES_ON,
    HARMLESS,
    HEDGE,
    LISTED,
    MATH,
    NO_THING,
    NUMBER,
    OPERATOR,
    REASON,
    RETRACTED,
    SENTENCE_END,
    STRONG,
    TAKEN_BACK,
    THING,
    UNIT,
    VERB,
    WORD,
    turned,
)
from phi_lab.verify.units import CHANGING, known

_WIDE = re.compile(r" [^\S\n]+|[^\S\n ][^\S\n]*")  # every run of spaces but one plain space


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
    part = _undressed(part, strict)
    if (whole := _whole(part)) is not None:
        return Said(whole, "the whole text")
    if "s are" in part and (listed := LISTED.fullmatch(SENTENCE_END.split(part[-1000:])[-1])):
        items = re.sub(r"\s+and\s+|,\s+(?:and\s+)?", ", ", listed[1]).replace("$", "")
        return Said(rf"\{{{items}\}}", "several answers")  # a set, which nobody takes for 1,2 with a decimal comma
    cues = list(ANSWER_CUE.finditer(part))
    if cues:
        if part[max(0, cues[-1].start() - 1) : cues[-1].start()] == "'" and len(cues) > 1:
            cues.pop()
        said = _statement(part[cues[-1].end() :], first=True)
        later = SENTENCE_END.split(part[cues[-1].end() :].strip(), maxsplit=1)[1:]
        if said.answer and later and RETRACTED.search(later[0]):
            return Said(None, "taken back")
        if said.answer or not re.match(r"\s*$", part[cues[-1].end() :]):
            return said
    sentences = [s for s in (piece.strip() for piece in SENTENCE_END.split(part[-2000:])) if re.search(r"\w", s)]
    if not sentences:
        return Said(None, "no sentence")
    if len(sentences) > 1 and not re.search(r"\d|\$|\\[(\[]", sentences[-1]):
        if strict and TAKEN_BACK.search(sentences[-1]):
            return Said(None, "a last sentence that takes it back")
        sentences.pop()
    said = _last_sentence(sentences[-1], part, strict)
    if said.answer is None and said.rule in ("no number", "no cue", "several numbers") and not strict:
        return _last_number(part[-2000:])
    return said


def _last_number(part: str) -> Said:
    """The last formula or number of a text, as benchmarks without a fixed form of answers take it."""
    last = None
    for pattern in (MATH, NUMBER):
        for match in pattern.finditer(part):
            if pattern is MATH and "\\" not in match[0] and len(WORD.findall(match[0])) > 1:
                continue  # two prices with words between them
            if not last or (match.end() > last.end() and match.start() > last.start()):
                last = match
    if not last:
        return Said(None, "no number")
    return Said(_inside(last) if last.re is MATH else last[0].strip().rstrip(","), "the last number")


def read_tag(content: str) -> Said:
    """The answer inside <answer>: as it stands, or what a sentence in it states."""
    whole = MATH.fullmatch(content)
    inner = _inside(whole) if whole else content
    if len(WORD.findall(re.sub(r"\\[a-zA-Z]+", "", inner))) <= 2 and not MATH.search(inner):
        return Said(inner, "answer tag")
    said = read(content, strict=True)
    return said if said.answer else Said(content, "answer tag")


def _undressed(part: str, strict: bool) -> str:
    """A text without quotation marks and Markdown around it."""
    part = _WIDE.sub(" ", part.replace('\\"', '"')).strip()
    if not strict:
        part = re.sub(r"^(?:>\s?)+", "", part)  # a quotation, or a bound
    if len(part) > 2 and part[0] == part[-1] == "'":
        part = part[1:-1]
    return part.strip(' \n`"“”').replace("“", '"').replace("”", '"')


def _whole(part: str) -> str | None:
    """A text that is nothing but its answer: one formula, or a few words or signs."""
    whole = MATH.fullmatch(part.strip("*. "))
    if whole and not re.search(r"(?<!\\)\$", _inside(whole)):
        return _inside(whole)
    formula = MATH.match(part)
    if (
        formula
        and re.fullmatch(r"\s*(?:%|[A-Za-z]{1,12}\s?){1,2}\.?", part[formula.end() :])
        and not HEDGE.search(part[formula.end() :])
    ):
        return f"{_inside(formula)} {part[formula.end() :].strip(' .')}"
    if len(part) <= 200 and "\n" not in part and not MATH.search(part):
        words = WORD.findall(re.sub(r"\\[a-zA-Z]+", "", part))
        if DENIAL.search(part) or (HEDGE.search(part) and re.search(r"\d", part) and words):
            return None
        limit = 3 if not re.search(r"\d", part) else 1 if re.match(r"[-+$(]*\d", part) else 0
        if "=" in part and words and re.search(r"=\s*\S+\s+[^\W\d_]{2,}", part):
            return None
        if len(words) <= limit and not ANSWER_CUE.search(part):
            return part.rstrip(". !")
    return None


def _statement(rest: str, first: bool) -> Said:
    """What follows "the answer is"."""
    rest = rest.strip().lstrip('*": }\n').replace("**", "")
    rest = re.sub(
        r"^\s*(?:therefore|thus|then|hence|simply|just|clearly|indeed|exactly|now|definitely|surely|"
        r"only)\s+(?=[\d$\\(-])",
        "",
        rest,
    )
    formula = MATH.match(rest)
    if formula:
        after = rest[formula.end() :]
        more = re.match(r"\s*(?:,|and|or|,\s*and|,\s*or)\s*", after)
        second = more and MATH.match(rest, formula.end() + more.end())
        if second:
            return Said(f"{_inside(formula)}, {_inside(second)}", "after a cue")
        if not re.match(r"\s*=", after):  # of $x$ = $5$ the last side counts
            return _formula(_inside(formula), after)
    sentence = re.sub(r"(?:\.|!|。)$", "", SENTENCE_END.split(rest, maxsplit=1)[0].strip())
    if not sentence:
        return Said(None, "nothing after the cue")
    sentence = re.sub(r"\s*\(\s*=[^()]*\)$", "", sentence.strip('"'))
    if re.fullmatch(r"[-+\d\s/*().,^=]+", sentence) or (len(sentence.split()) <= 2 and not HEDGE.search(sentence)):
        return Said(sentence.rstrip(","), "after a cue")
    clause = REASON.split(sentence, maxsplit=1)[0].strip()
    words_alone = re.fullmatch(r"[A-Za-z]+ ?[A-Za-z]*", clause)
    if re.search(r"\d", sentence) and not re.search(r"\d|\$", clause) and not words_alone:
        clause = sentence
    if _open(clause) or ALTERNATIVE.match(sentence[len(clause) :]):
        return Said(None, "a denial, a hedge or an alternative")
    return _number_in(clause, first=first) or (
        Said(None, "no number after the cue") if re.search(r"\d", clause) else Said(clause, "after a cue")
    )


def _formula(said: str, after: str) -> Said:
    """A formula behind "the answer is": none where what follows would not be passed behind a plain number."""
    if re.match(r"\s*,?\s*(?:or|if|unless|maybe|perhaps|plus|minus|times)\b", after):
        return Said(None, "an alternative")
    if (follows := MATH.match(after.lstrip())) and OPERATOR.match(_inside(follows)):
        return Said(None, "a number that goes on")
    sentence = re.sub(r"(?:\.|!|。)$", "", SENTENCE_END.split(after, maxsplit=1)[0].rstrip())
    scaled = re.match(r"\s?(hundred|thousand|million|billion|trillion|percent(?!\s+of\s+[\d$\\(]))\b", sentence)
    if scaled and re.fullmatch(r"[-+]?\d[\d.,]*", said):
        return Said(f"{said} {scaled[1]}".replace(" percent", "\\%"), "after a cue")
    word = re.match(r"\s*([^\W\d_]+)", sentence)
    if GOES_ON.match(_masked(sentence)) or (word and word[1].lower() in CHANGING - HARMLESS):
        return Said(None, "a number that goes on")
    clause = REASON.split(sentence, maxsplit=1)[0]
    hedged = _open(clause) or ALTERNATIVE.match(sentence[len(clause) :])
    return Said(None, "a denial, a hedge or an alternative") if hedged else Said(said, "after a cue")


def _open(clause: str) -> bool:
    """Does a clause deny or hedge its number, or offer another? Formulas and what stands before the verb aside."""
    plain = MATH.sub(" § ", clause)
    verbs = [
        m for m in re.finditer(r"(?i)\b(?:is|are|est|equals?|ist)\b|=", plain) if re.search(r"[\d§]", plain[m.end() :])
    ]
    plain = plain[verbs[-1].end() :] if verbs else plain
    return bool(DENIAL.search(plain) or HEDGE.search(plain))


def _masked(text: str) -> str:
    """A text of the same length in which every formula is a row of §."""
    for m in _formulas(text):
        text = text[: m.start()] + "§" * len(m[0]) + text[m.end() :]
    return text


def _formulas(text: str) -> list[re.Match]:
    """The formulas of a text; two prices with words between them are none."""
    return [m for m in MATH.finditer(text) if "\\" in m[0] or len(WORD.findall(m[0])) <= 1]


def _number_in(clause: str, first: bool) -> Said | None:
    """The number or formula that a clause states: behind its last "=", or behind "is", or the only one."""
    clause = re.sub(r"[.。]$", "", clause.replace("**", "").strip())
    if _only_mathematics(clause):
        return Said(clause.rstrip(","), "after a cue")
    masked, formulas = _masked(clause), _formulas(clause)
    places = sorted([*formulas, *NUMBER.finditer(masked)], key=lambda m: m.start())
    if not places:
        return None
    verbs = list(VERB.finditer(masked))
    behind = [m for m in places if verbs and m.start() >= verbs[-1].end()]
    chosen = behind[0] if behind else places[0] if first else places[-1]
    said = _inside(chosen) if chosen in formulas else chosen[0].strip().rstrip(",")
    if turned(masked[max(0, chosen.start() - 60) : chosen.start()]):
        return Said(None, "a number that something before it changes")
    return _with_tail(said, masked[chosen.end() :], clause[chosen.end() :])


def _only_mathematics(clause: str) -> bool:
    return not WORD.search(re.sub(r"\\[a-zA-Z]+|sqrt|sin|cos|tan|log|ln|pi", "", clause)) and not _formulas(clause)


def _with_tail(said: str, masked: str, tail: str) -> Said:
    """A number with the unit behind it; None where the text goes on to another number: 94 divided by 3, 182 or 181."""
    goes_on = GOES_ON.match(masked)
    word = re.match(r"\s*([^\W\d_]+)", masked)
    if goes_on or (word and word[1].lower() in CHANGING - HARMLESS):
        return Said(None, "a number that goes on")
    unit = UNIT.match(tail)
    if not unit and word and word[1].lower() not in NO_THING:
        thing = THING.match(tail)
        if thing and (len(thing[1]) > 2 or known(thing[1].partition("/")[0])):
            return Said(f"{said} \\text{{{thing[1]}}}{(thing[2] or '').strip()}", "after a cue")
    return Said(said + (" " + unit[0].strip() if unit else ""), "after a cue")


def _last_sentence(sentence: str, part: str, strict: bool) -> Said:
    """The answer of a text that never says "answer": the number its last sentence ends in."""
    clause = REASON.split(sentence, maxsplit=1)[0]
    if ALTERNATIVE.match(sentence[len(clause) :]):
        return Said(None, "a denial, a hedge or an alternative")
    if re.search(r"\d", clause) and CUE.search(clause) and not DENIAL.search(clause):
        sentence = clause
    masked = _masked(sentence)
    cues = list(CUE.finditer(masked))
    display = list(MATH.finditer(part[-2000:]))
    if display and display[-1].end() >= len(part[-2000:].rstrip(" .")) - 1 and "§" not in masked:
        return Said(_inside(display[-1]), "the last formula")
    start = 0
    strong = [cue for cue in cues if STRONG.fullmatch(cue[0])]
    if strong and re.search(r"[\d§]", masked[strong[-1].end() :]):
        spoken = [cue.end() for cue in strong if "=" not in cue[0]]
        start = spoken[-1] if spoken and _only_mathematics(sentence[spoken[-1] :]) else strong[-1].end()
    clause = REASON.split(sentence[start:], maxsplit=1)[0] if start else sentence
    if not re.search(r"\d", clause):
        clause = sentence[start:]
    if (
        ALTERNATIVE.match(sentence[start:][len(clause) :])
        or _open(clause)
        or (not start and _open(sentence))
        or _takes_back(sentence[:start])
    ):
        return Said(None, "a denial, a hedge or an alternative")
    within = _masked(clause)
    values = {re.sub(r"[\s$,€£]", "", m[0]) for m in NUMBER.finditer(within)} | {m[0] for m in _formulas(clause)}
    if strict and not cues and "§" not in masked:
        return Said(None, "no cue")
    if strict and len(values) > 1 and not re.search(r"=\s*[^=]*$", within) and not start:
        return Said(None, "several numbers")
    said = _number_in(clause, first=bool(start) and "=" not in within)
    return Said(said.answer, "the last sentence" if said.answer else said.rule) if said else Said(None, "no number")


def _takes_back(before: str) -> bool:
    """Does what stands before a number deny or doubt it?"""
    denied = re.search(r"(?i)\b(?:not|cannot|never)\s+(?:be|is)?\s*$|\b(?:maybe|perhaps|either|guess)\b", before[-40:])
    return bool(denied or DOUBT.search(before))


def _inside(match: re.Match) -> str:
    return next(g for g in match.groups() if g is not None).strip()
