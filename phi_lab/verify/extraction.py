"""Where is the final answer in what a model wrote? Text only, linear in its length.

The order: the text after the thinking (an answer inside it is a thought, and a thought that never closes is no answer);
there the last complete `\\boxed{}` or `\\fbox{}`, which no later sentence replaces, or the number that alone follows an
empty one; else `<answer>`, JSON with an `answer`, `#### n`; else what prose states (`prose`).
"""

import json
import re
from typing import NamedTuple

from phi_lab.verify import prose

UNFINISHED, UNPARSED = "unfinished", "unparsed"
TAIL = 20_000  # characters at the end of a text in which an answer without a box is looked for
NEAR = 60  # characters between boxes that stand together
_THINK = (
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
_PLAIN_BOX = re.compile(r"\\boxed\{([^{}\\]*)\}")
_BOX_TOKEN = re.compile(r"[{}]|\\(?:[{}]|(?:boxed|fbox)\s*\{|\\(?!boxed|fbox))")  # the last is a line break
_ENDING = re.compile(r"\\boxed\{([\w.,/+-]{1,60})\}[.$*\s]*(?:\\[)\]][.$*\s]*)?", re.ASCII)
_BARE_BOX = re.compile(  # without braces nobody knows where it ends: the line is taken
    r"\\(?:boxed|fbox)\s*([\w.+-][^\r\n$]{0,99}?)[ \t*}]*(?:\$|\\[)\]]|[\r\n]|\Z)"
)
_OPENED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_AFTER_EMPTY = re.compile(  # small models copy the instruction, box and all, and then write the number
    r"\\(?:boxed|fbox)\s*\{\s*\}[\s:=$*]*([-+]?\d[\d.,/]*(?<![.,/]))[.\s$*]*", re.ASCII
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_DENIERS = frozenset("not never cannot except excluding unlike".split())
_DENIERS_OF_TWO = frozenset([
    "any but", "anything but", "every but", "everything but", "all but", "all except", "except for", "other than",
    "rather than", "different than", "different from", "far from", "instead of", "no longer"])  # fmt: skip
_UNEQUAL = ("≠", "!=", "\\ne", "\\neq", "\\not", "\\not=", "\\not =", "\\notin", "\\not\\in", "\\not\\equiv")
_FILLERS = frozenset(  # words that may stand between a denial and its box
    "be been equal equals to the a an answer is it that think believe actually possibly really correct right number "
    "value".split()
)
_LAST_WORDS = _FILLERS | _DENIERS | {two.split()[1] for two in _DENIERS_OF_TWO} | {"no", "nor", "neither"}
_OPENING = " \t\r\n:$(*{[\\"  # what may stand directly before a box
_MINERVA = re.compile(r"The final answer is \$([^$\n]{1,200})\$\. I hope it is correct")
_BACK = re.compile(
    r"(?i)\b(?:no|not|wrong|slip|mistake|error|fails?|rather|instead|correct\w*|actually|wait|sorry|only|mended|"
    r"check)\b"
)
_END_MARKS = re.compile(
    r"(?:</s>|<\|(?:im_end|endoftext|eot_id|end_of_solution|im_start\|>user|end)\|?>|<\|im_start\|>user|"
    r"I hope it is correct\.)"
)


class Found(NamedTuple):
    """`answer`, or None and `why` there is none; `rule`: where it was read."""

    answer: str | None
    why: str
    rule: str


class Box(NamedTuple):
    """A box: where its content starts and the box ends, and its content."""

    start: int
    content: str
    end: int


def answer_part(text: str) -> str | None:
    """The text after the thinking, or None while the thinking goes on."""
    if not _may_think(text):
        return text
    for opened, closed in _THINK:
        end = text.rfind(closed)
        if text.find(opened, end + 1) >= 0:
            return None
        if end >= 0:
            text = text[end + len(closed) :]
            if not _may_think(text):
                break
    return text


def _may_think(text: str) -> bool:
    """Might a mark of thinking stand in a text? A first look, many times faster than a search for each mark."""
    return "<" in text or ("[" in text and "THINK]" in text) or "◁" in text


def last_box(text: str, end: int | None = None) -> int:
    """Where the last `\\boxed` or `\\fbox` before `end` starts, or -1."""
    boxed = text.rfind("\\boxed", 0, end)
    return max(boxed, text.rfind("\\fbox", boxed + 1, end))


def at_a_glance(text: str) -> str | None:
    """The answer of the commonest completions, which end in their only box: `…</think>\\boxed{85}`, `So \\boxed{1/2}.`

    None for every other: what might be thinking, another box or a denial is left to `find`, which says the same of
    these, in three times as long."""
    last = text.rfind("\\boxed{")
    ending = _ENDING.fullmatch(text, last) if last >= 0 else None
    if ending is None:
        return None
    if last and not text.endswith("</think>", 0, last):
        before = text[:last]
        if _may_think(before) or before.rfind("\\boxed") >= 0 or before.rfind("\\fbox") >= 0:
            return None
        if _denied(before):
            return None
    return ending[1]


def alone(text: str) -> bool:
    """Is it sure at a glance that no other box stands beside the last of a text? It is where there is no other, or
    where none ends in the 60 characters before and the last is not part of another."""
    last = last_box(text)
    if last <= 0 or last_box(text, last) < 0:
        return True
    box = _PLAIN_BOX.match(text, last)
    if not box or not box[1].strip() or "}" in text[max(0, last - NEAR - 1) : last]:
        return False
    return text.find("}", box.end()) < 0


def boxes(part: str) -> tuple[list[Box], bool]:
    """The complete boxes that hold something and lie in no other complete one, and whether the last one is unclosed."""
    spans: list[tuple[int, int, int]] = []  # of the outermost: the contents of all grow as the square of the depth
    stack: list[int] = []
    for token in _BOX_TOKEN.finditer(part):
        kind = token[0]
        if kind == "}":
            if stack and (start := stack.pop()):
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, token.start(), token.end()))
        elif kind == "{":
            stack.append(0)
        elif kind[1] in "bf":
            stack.append(token.end())
    found = [Box(start, content, end) for start, close, end in spans if (content := part[start:close].strip())]
    return found, any(stack)


def find(text: str, strict: bool = True) -> Found:
    """The final answer of a completion, and where it was read."""
    part = answer_part(text)
    if part is None:
        return Found(None, UNFINISHED, "the thinking never ends")
    last = last_box(part)
    if last >= 0:
        if not strict and (later := _MINERVA.search(part, last)):
            return Found(later[1], "", "Minerva's closing sentence")
        return _boxed(part, last)
    part = _END_MARKS.sub("", part[-TAIL:]).strip()
    if "<answer>" not in part:
        part = part.removesuffix("</answer>").strip()
    if not part:
        return Found(None, UNFINISHED, "nothing follows the thinking")
    if "<answer>" in part and (tagged := part.rpartition("<answer>")[2].partition("</answer>"))[1]:
        return _read(tagged[0].strip(), strict, "answer tag", tagged=True)
    part = part.removeprefix("```json").strip("`\n ")
    if part[-1:] == "}" and '"' in part and (said := _json_answer(part)) is not None:
        return _read(said, strict, "JSON", tagged=True)
    hashes = part.rfind("####")
    if hashes >= 0:
        line, _, after = part[hashes + 4 :].strip().partition("\n")
        if line.strip() and not (after.strip() and prose.is_heading(line)) and not prose.is_heading(line):
            return Found(line.strip(), "", "#### line")
    return _read(part, strict, "prose")


def _boxed(part: str, last: int) -> Found:
    """The answer in the boxes of a text, whose last begins at `last`; of boxes in each other, in the outermost."""
    simple = _PLAIN_BOX.match(part, last)
    if simple and (answer := simple[1].strip()) and (part.find("}", simple.end()) < 0 or last_box(part, last) < 0):
        if _denied(part[max(0, last - 60) : last]):
            return Found(None, UNPARSED, "a denied box")
        return Found(answer, "", "box")
    found, unclosed = boxes(part)
    if found:
        outer = max(found, key=lambda box: box.end)
        before = re.sub(r"\\(?:boxed|fbox)\s*\{$", "", part[max(0, outer.start - 70) : outer.start])
        if _denied(before):
            return Found(None, UNPARSED, "a denied box")
        return Found(_unboxed(outer.content), "", "box")
    if unclosed:
        return Found(None, UNFINISHED, "the box never closes")
    if bare := _BARE_BOX.match(part, last):
        return Found(bare[1], "", "box")
    after = _AFTER_EMPTY.fullmatch(part, last)
    return Found(after[1], "", "after an empty box") if after else Found(None, UNPARSED, "an empty box")


def _unboxed(content: str) -> str:
    """What a box holds, without boxes around parts of it: 1+{5} of \\boxed{1+\\boxed{5}}, 5 of \\boxed{\\boxed{5}}."""
    while content.endswith("\\\\"):  # a line break
        content = content[:-2].rstrip()
    if "\\boxed" not in content and "\\fbox" not in content:
        return content
    for _ in range(3):
        opened = _OPENED.match(content)
        if not opened or not any(b.start == opened.end() + 1 and b.end == len(content) for b in boxes(content)[0]):
            break
        content = content[opened.end() + 1 : -1].strip()
    return _OPENED.sub("", content)


def _denied(before: str) -> bool:
    """Does a denial end what stands before a box: not, no, other than, ≠? Its last 60 characters are looked at."""
    before = before[-60:]
    core = before.rstrip(_OPENING)
    last = core[core.rfind(" ") + 1 :].lower()
    if last.isalpha():  # most texts are left at a glance
        if last not in _LAST_WORDS or (last in _FILLERS and not _may_deny(core)):
            return False
    else:
        while core.endswith(("\\,", "\\;", "\\!")):
            core = core[:-2].rstrip(_OPENING)
        if core.endswith(_UNEQUAL):
            return True
    words = [word.lstrip('("*$') for word in core.split()]
    if words and words[-1] in ("no", "nor", "neither"):
        gap = before[len(core) :]  # "No: \boxed{6}", "yes or no \boxed{no}", the small world's "9 no\boxed{9}"
        return bool(gap) and not set(":\n") & set(gap) and words[-2:-1] != ["or"]
    words = [word.lower() for word in words]
    for _ in range(6):
        if words and words[-1] in _FILLERS:
            words.pop()
    two = " ".join(words[-2:])
    if two in _DENIERS_OF_TWO:
        return not {"no", "none", "nothing"} & set(words[:-2])  # none other than \boxed{5}
    return two.endswith(("n't", "n’t")) or (bool(words) and words[-1] in _DENIERS)


def _may_deny(text: str) -> bool:
    """Might a denial stand in a text? A first look, at pieces without first letters, which may be capitals."""
    for piece in ("ot", "n't", "n’t", "ever", "xc", "nlike", "but", "than", "from", "nstead", "longer"):
        if piece in text:
            return True
    return False


def _json_answer(part: str) -> str | None:
    """The value of "answer" in an object that ends a text."""
    for start in (part.rfind("{"), part.find("{")):
        try:
            said = json.loads(part[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            for key in ("answer", "final_answer", "Answer", "result"):
                if isinstance(said.get(key), str | int | float) and not isinstance(said[key], bool):
                    return str(said[key])
    return None


def _read(part: str, strict: bool, rule: str, tagged: bool = False) -> Found:
    if not part:
        return Found(None, UNPARSED, f"an empty {rule}")
    if rule == "answer tag" and part[0] == "{" and '"' in part:
        part = _json_answer(part) or part
    said = prose.read_tag(part) if tagged else prose.read(part, strict)
    return Found(said.answer, "" if said.answer else UNPARSED, said.rule if rule == "prose" else rule)


def extract(text: str) -> str | None:
    """The final answer that a text states, as it is written, or None; never one in the thinking.
    The order is the one at the top of this module."""
    return find(text).answer


def several(text: str, loose: bool = False) -> list[str]:
    """The boxes that end a text, where only "and", "or", signs or a word or two stand between them: one answer in
    several boxes, or alternatives. With other words between, the last box is a correction, and it alone is returned;
    a denied box is none of them. `loose`: boxes may also stand with nothing between them."""
    part = answer_part(text) or ""
    chain: list[str] = []
    start = None
    for box in reversed(boxes(part)[0]):
        before = re.sub(r"\\(?:boxed|fbox)\s*\{$", "", part[max(0, box.start - 70) : box.start])
        if start is not None:
            gap = re.sub(r"\\(?:boxed|fbox)\s*\{$", "", part[box.end : start])
            plain = re.sub(r"\\[a-zA-Z]+", " ", gap)
            joined = re.search(r"\b(?:and|or)\b", gap)
            signs = joined or loose or re.search(r"[,;]", gap)
            if len(gap) > NEAR or _BACK.search(gap) or (_WORD.search(plain) and not joined) or not signs:
                break
            if _denied(before):
                break
        chain.append(_unboxed(box.content))
        start = box.start
    return chain[::-1]
