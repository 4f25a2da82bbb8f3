"""Python with gaps, for the code prompts: what is to be filled in is written as `...`.

Slots are $f (the function), $x, $y, $z (variables) and $n (a whole number of at least 2).
"""

CODE_OPENINGS = (
    "Complete this Python code.",
    "Fill in this Python template.",
    "Finish the following Python function.",
    "Put working Python in place of every gap.",
    "Here is Python with gaps. Fill them.",
    "Replace each ... so that the function does something sensible.",
    "This Python function is not finished. Finish it.",
    "Write out the template below in full.",
    "Each ... stands for missing Python. Supply it.",
    "Turn this sketch into a working Python function.",
)
CODE_ENDINGS = (
    "Code only, no comments, and names as short as can be.",
    "Answer with code alone. No comments; keep every new name minimal.",
    "Return nothing but the code. Leave comments out and use minimal names.",
    "Give just the code, without comments and with short names.",
    "Only code, please: no comments, no explanation, minimal names.",
    "Your answer is code and nothing else; it has no comments and its names are short.",
    "No text and no comments, only code with minimal names.",
    "Write the code by itself. Do not comment it. Choose minimal names.",
    "Reply with the finished code only. Comments are not wanted; names should be minimal.",
    "Do not explain and do not comment: code only, with the shortest names that work.",
)

CODE_TEMPLATES = (
    """\
def $f($x):
    $y = ...
    for $z in $x:
        ...
    return $y""",
    """\
def $f($x, $y=$n):
    if $x < $y:
        return ...
    return ...""",
    """\
def $f($x):
    $y = {}
    for $z in $x:
        $y[...] = ...
    return $y""",
    """\
def $f($x):
    return [... for $y in $x if ...]""",
    """\
def $f($x, $y):
    while $y:
        $x, $y = ...
    return $x""",
    """\
def $f($x):
    $y, $z = 0, len($x) - 1
    while $y < $z:
        ...
    return $x""",
    """\
def $f($x):
    if len($x) < 2:
        return $x
    $y = len($x) // 2
    return ...""",
    """\
def $f($x=$n):
    $y = [0, 1]
    while len($y) < $x:
        ...
    return $y""",
    """\
class $f:
    def __init__(self, $x=$n):
        self.$x = $x

    def $y(self):
        return ...""",
    """\
def $f($x):
    try:
        return ...
    except ValueError:
        return $n""",
    """\
def $f($x):
    with open($x) as $y:
        return ...""",
    """\
def $f($x, $y):
    def $z(*a):
        ...
        return $x(*a)

    return $z""",
    """\
def $f($x):
    for $y in range($n):
        if ...:
            yield ...""",
    """\
def $f($x):
    $y = set()
    $z = []
    for i in $x:
        if ...:
            ...
    return $z""",
    """\
def $f($x):
    return sorted($x, key=lambda $y: ...)[:$n]""",
    """\
def $f($x, $y):
    return {$z: ... for $z in $x if $z in $y}""",
    """\
def $f($x):
    $y = $x.split(...)
    $z = ...
    return $z.join($y)""",
    """\
def $f($x):
    $y = [$x]
    while $y:
        $z = $y.pop()
        ...""",
    """\
def $f($x):
    return [[... for $y in range($n)] for $z in range($x)]""",
    """\
def $f($x, $y, $z=$n):
    if $z == 0:
        return ...
    return $f(..., ..., $z - 1)""",
    """\
def $f($x):
    $y = 0
    for i, $z in enumerate($x):
        if ...:
            $y += ...
    return $y % $n""",
    """\
def $f($x, $y):
    $z = zip($x, $y)
    return sum(... for i, j in $z)""",
    """\
def $f($x):
    match $x % $n:
        case 0:
            return ...
        case _:
            return ...""",
    """\
def $f($x):
    assert ...
    $y = $x[-1]
    for $z in $x[:-1]:
        $y = max(...)
    return $y""",
    """\
def $f($x, $y=None):
    if $y is None:
        $y = ...
    $y.append($x)
    return $y[-$n:]""",
)
