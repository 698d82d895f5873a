"""The words by which prose states an answer, hedges it, denies it or goes on: patterns for `prose`."""

import re

ANSWER_CUE = re.compile(
    r"(?=[farws答])(?:"  # the letters that a cue begins with: most places are left at a glance
    r"(?:final\s+answer|answer|réponse|antwort|respuesta|答案|(?:wait|sorry|actually)\W{1,3}(?:no\W{1,3})?it)\b\W{0,4}?"
    r"(?:\s+(?:is|are|est|ist|es|should be|must be)\b|\s*[:：]|\s*是|"
    r"\s+(?=[$\\(\d-]))\s*:?(?:\s*(?:the\s+)?(?:final\s+)?answer\s+is\b)?"
    r"|(?m:^A\s*:))",
    re.IGNORECASE,
)
_ITEM = r"(?:-?\d{1,20}(?:\.\d{1,20})?(?:/\d{1,20})?|\$[^$\n]{1,100}\$)"
LISTED = re.compile(  # a whole sentence: So the answers are 1, 2 and $\pi$.
    r"(?i)\W*(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the\s+)?(?:final\s+)?(?:answers|solutions)\s+are\s*:?\s*"
    rf"({_ITEM}(?:(?:,\s+(?:and\s+)?|\s+and\s+){_ITEM}){{1,9}})[.!*\s]*"
)
CUE = re.compile(
    r"(?i:\b(?:that (?:is|makes|gives|leaves)|which (?:is|gives|makes|leaves)|(?:comes?|amounts?|adds? up) to|"
    r"(?:result|total|sum|solution|"
    r"value|cost|number|product|difference|probability|ratio|area|length|price|remainder|gap|matrix|perimeter|"
    r"volume)\b[^.!?\n]{0,120}?\b(?:is|are|was|of|=)|"
    r"so|thus|hence|therefore|finally|in conclusion|altogether|in (?:all|total)|it follows that|gives?|gets?|"
    r"finds?|found|obtains?|concludes?|equals?|makes?|leaving|"
    r"total|has|have|needs?|costs?|takes?|took|earns?|pays?|paid|sells?|sold|"
    r"spends?|spent|saves?|saved|buys?|bought|weighs?|lasts?|meet|travels?|there (?:is|are|were|will be)|"
    r"is|are|donc|coût|est|soucis|en total|"
    r"remain(?:s|ing)?|left)\b)"
    r"|[=→]|[:：]\s*(?=[-$\\(\d])|因此|所以|一共|共|是|为|為|इसलिए|لذا|है|هو"
)
STRONG = re.compile(
    r"(?i)leaving|makes|gives|yields|leaves|equals|so|thus|hence|therefore|donc|"
    r"(?:that|which) \w+|(?:comes?|amounts?|adds? up) to|"
    r".*\b(?:is|are|was|of|est)|.*=|[=]"
)
HEDGE = re.compile(
    r"(?i)\b(?:either|neither|nor|or|maybe|perhaps|possibly|probably|likely|guess(?:ed)?|unsure|uncertain|could|"
    r"might|may be|would|unless|"
    r"if|greater|larger|bigger|smaller|less|fewer|more|higher|lower|above|below|between|at least|at most|up to|"
    r"almost|nowhere|near|far from|anything but|close to|nearly|"
    r"roughly|around|about|over|under|exceeds?|except|wrong|incorrect|false|thought|said|cannot tell)\b|[<>≤≥±]|"
    r"\\(?:pm|le|ge|lt|gt|leq|geq|neq|ne)\b"
)
ALTERNATIVE = re.compile(r"(?i)\s*+\(?\s*+(?:or|and)\s+\S*\d")
DOUBT = re.compile(
    r"(?i)\b(?:doubt\w*|unlikely|wonder|whether|suspect|hope|deny|refuse|wrongly|mistaken\w*|"
    r"some (?:people )?(?:say|think))\b"
)
TAKEN_BACK = re.compile(
    r"(?i)\b(?:not (?:sure|right|correct|certain)|unsure|wrong|incorrect|mistake|guess\w*|cannot|can't|"
    r"do(?:es)?(?:n't| not)|isn't|"
    r"just kidding|no answer|on second thought|impossible)\b"
)
DENIAL = re.compile(r"(?i)\b(?:not|never|cannot|can't|isn't|aren't|wasn't|can’t|isn’t|impossible)\b|n't\b|n’t\b")
REASON = re.compile(
    r"(?i)(?:\s*,)?\s*\b(?:because|since|which(?! (?:gives|makes|leaves|means|equals|totals|comes))|as (?:is|it|the|"
    r"\d|we|can)|so that|where|note that|instead of|rather than|given that|but not|and not|"
    r"after|while|whereas)\b|,\s*(?:not|less|more|for)\b|\s\((?=[^)]*\))|\s(?:and this|and that)\b"
)
MATH = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$((?:[^$\n]|\\\$){0,500}?[^$\s\\+*/=-])\s?(?<!\\)\$(?!\d)|"
    r"\\\((.{1,500}?)\\\)|\\\[(.{1,2000}?)\\\]",
    re.DOTALL,
)
NUMBER = re.compile(
    r"\d{1,40}_\{?\d{1,2}\}?|-?\\[dt]?frac\{\d{1,20}\}\{\d{1,20}\}"
    r"|(?:(?<![\w.,/])[-+]|(?<![\w.,/+-]))(?:[€£¥₹]|\\?\$(?=\d))?(?:\d{1,3}(?:,\d{3})+(?!\d)|"
    r"\d{1,60})(?:[.,]\d{1,40})?(?:\s?/\s?\d{1,40}|:\d{2}(?!\d))?"
    r"(?!\w*\d)(?:\s?%|\s?[€£]|\s(?:hundred|thousand|million|billion|trillion)\b)?",
    re.ASCII,
)
WORD = re.compile(r"[^\W\d_]{2,}")
GOES_ON = re.compile(
    r"(?:st|nd|rd|th)\b|\s*(?:[+*/^_=<>≤≥±×÷·?!|{½⅓⅔¼¾⅕⅙⅛]|-\s*[\d§(]|\.\.|…|:\d|"
    r"[,;&]\s*(?:and|or)?\s*[$§]?\s*-?[\d§]|%\s*\^|"
    r"\\(?!text|mathrm|,|\s|%|circ)|"
    r"(?:to|in|out of|of|and|or|by|,\s*and|,\s*or|"
    r"\\text\s*\{\s*(?:to|or|and|times|plus|minus)\s*\})\s*[$§]?\s*-?[\d§]|"
    r"to\s+the\s+(?:(?:power|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|minus|negative|n)\b|[\d$§])|"
    r"and\s+(?:an?|one|two|three|four|five)[\s-]+(?:hal(?:f|ves)|thirds?|quarters?|fourths?|\w+ths?)\b|"
    r"\(\s*(?:or|and|if|maybe|perhaps)\b)|\s+\d+\s*/\s*\d",
    re.IGNORECASE,
)
_TURNED = re.compile(
    r"(?i)(?:\b(?:(?:square|cube|cubic|\w{1,9}th|the) roots?|halves|half|thirds?|quarters?|fourths?|fifths?|sixths?|"
    r"sevenths?|eighths?|ninths?|tenths?|twelfths?|hundredths?|thousandths?|square|cube|reciprocal|inverse|negative|"
    r"opposite|log(?:arithm)?|factorial|double|triple|multiple|complement|sine|cosine|tangent)\s+of|%\s*of|"
    r"\b(?:twice|thrice|half|double|triple|minus|negative|plus|times|over|divided by|multiplied by|sqrt|log|ln|sin|cos|"
    r"tan|to the))(?:\s+(?:the|number|an?))*[\s(]*$"
)
_LAST_WORDS = frozenset(  # of _TURNED, to look at most texts but once
    "of the number a an twice thrice half double triple minus negative plus times over by sqrt log ln sin cos "
    "tan".split()
)
OPERATOR = re.compile(  # what a formula begins with that goes on with the one before it
    r"\s*(?:[-+*/=<>!\d]|\^(?!\s*\{?\s*\\circ)|\\(?:cdot|times|div|pm|mp|frac|sqrt|over|ge|le|ne)(?![a-z]))"
)
UNIT = re.compile(r"\s*(?:\\[, ]\s*)?\\(?:text|mathrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?|\s*(?:°|\\%|%|\^\s*\\circ)")
THING = re.compile(r"\s*([a-zA-Z]{1,20}(?:/[a-z]{1,3})?)\b(\s*\^\s*\{?\d\}?)?")
HARMLESS = set("in to but about when where for say at most least and".split())
NO_THING = HARMLESS | set(
    """left in of for per at on and total altogether remaining more from each every a an the is are was who that this
    which by with to as so or after before when if there here again now then exactly only""".split()
)
SENTENCE_END = re.compile(
    r"\n|(?<=[.!?])(?<!\b[A-Z]\.)(?<!approx\.)(?<!sq\.)(?:\$\$|\\\]|\*\*)?\s+|(?<=[。！？])"
)
VERB = re.compile(
    r"(?i)\b(?:is|are|est|equals?|that is|es|ist|gets?|makes?|gives?|costs?|has|have|sold|earns?|pays?|takes?)\b|="
)
RETRACTED = re.compile(r"(?i)\b(?:wait|correction|scratch that|on second thought|i was wrong|that (?:is|was) wrong)\b")


def turned(before: str) -> bool:
    """Does what stands before a number make it another one: the square root of 5, twice 5, half of 5?"""
    words = before.rstrip(" (").rsplit(None, 1)
    return bool(words) and words[-1].lower() in _LAST_WORDS and bool(_TURNED.search(before))
