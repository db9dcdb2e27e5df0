"""Pairs of functions that differ in one thing only."""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """Two modules with a function `mask` that does not do the same: a text, and what `$` stands for in each."""

    name: str
    text: str
    one: str
    other: str


_PAIRS = """
--- text | < | <=
def mask(b, h, q, k):
    return q $ k

--- constant | 512 | 1024
WIDTH = $
def mask(b, h, q, k):
    return q - k < WIDTH

--- sign | 1.0 | -1.0
WIDTH = $
def mask(b, h, q, k):
    return q - k < WIDTH

--- kind of number | 1 | 1.0
WIDTH = $
def mask(b, h, q, k):
    return q - k < WIDTH

--- truth | True | 1
WIDTH = $
def mask(b, h, q, k):
    return q - k < WIDTH

--- zero | 0.0 | -0.0
WIDTH = $
def mask(b, h, q, k):
    return q - k < WIDTH

--- string or bytes | 'a' | b'a'
WIDTH = $
def mask(b, h, q, k):
    return q - k < len(WIDTH)

--- borders of strings | 'ab', 'c' | 'a', 'bc'
A, B = $
def mask(b, h, q, k):
    return len(A) < len(B)

--- tuple or list | (1, 2) | [1, 2]
WIDTHS = $
def mask(b, h, q, k):
    return q in WIDTHS

--- order | (1, 2) | (2, 1)
WIDTHS = $
def mask(b, h, q, k):
    return q < WIDTHS[0]

--- nesting | ((1, 2), 3) | (1, (2, 3))
WIDTHS = $
def mask(b, h, q, k):
    return q in WIDTHS

--- value in a dict | 1 | 2
WIDTHS = {'a': $}
def mask(b, h, q, k):
    return q < WIDTHS['a']

--- key of a dict | 1 | 2
WIDTHS = {$: 1}
def mask(b, h, q, k):
    return q < WIDTHS.get(1, 5)

--- set | 2 | 3
WIDTHS = {1, $}
def mask(b, h, q, k):
    return q in WIDTHS

--- range | 2 | 3
WIDTHS = range($)
def mask(b, h, q, k):
    return q in WIDTHS

--- helper | 3 | 4
def near(q, k):
    return q - k < $
def mask(b, h, q, k):
    return near(q, k)

--- constant of a helper | 3 | 4
N = $
def near(q, k):
    return q - k < N
def mask(b, h, q, k):
    return near(q, k)

--- helper's helper | 3 | 4
def n():
    return $
def near(q, k):
    return q < n()
def mask(b, h, q, k):
    return near(q, k)

--- helper's default | 3 | 4
N = $
def near(q, k, n=N):
    return q < n
def mask(b, h, q, k):
    return near(q, k)

--- which helper | a | c
def a(q):
    return q
def c(q):
    return -q
use = $
def mask(b, h, q, k):
    return use(q) < k

--- captured | 3 | 4
def make(n):
    def mask(b, h, q, k):
        return q < n
    return mask
mask = make($)

--- border between captured | 1, 28 | 12, 8
def make(m, n):
    def mask(b, h, q, k):
        return m < q < n
    return mask
mask = make($)

--- captured function | abs | float
def make(f):
    def mask(b, h, q, k):
        return f(q) < k
    return mask
mask = make($)

--- captured helper | a | c
def a(q):
    return q
def c(q):
    return -q
def make(f):
    def mask(b, h, q, k):
        return f(q) < k
    return mask
mask = make($)

--- default | 3 | 4
N = $
def mask(b, h, q, k, n=N):
    return q < n

--- default by name | 3 | 4
N = $
def mask(b, h, q, k, *, n=N):
    return q < n

--- decorator | and | or
import functools
def near(f):
    @functools.wraps(f)
    def inner(*a):
        return f(*a) $ True
    return inner
@near
def mask(b, h, q, k):
    return q < k

--- argument of a decorator | 3 | 4
def near(n):
    def wrap(f):
        def inner(*a):
            return f(*a) < n
        return inner
    return wrap
N = $
@near(N)
def mask(b, h, q, k):
    return q < k

--- lambda | < | >
mask = lambda b, h, q, k: q $ k

--- one of two lambdas | a | c
a, c = lambda b, h, q, k: q < 3, lambda b, h, q, k: q < 4
mask = $

--- lambda's constant | 3 | 4
N = $
mask = lambda b, h, q, k: q < N

--- lambda in a helper | 3 | 4
near = lambda q: q < $
def mask(b, h, q, k):
    return near(q)

--- partial | 3 | 4
import functools
def near(n, q):
    return q < n
use = functools.partial(near, $)
def mask(b, h, q, k):
    return use(q)

--- partial by name | 3 | 4
import functools
def near(q, n):
    return q < n
use = functools.partial(near, n=$)
def mask(b, h, q, k):
    return use(q)

--- state of a method's object | 3 | 4
class Window:
    def __init__(self, n):
        self.n = n
    def near(self, q):
        return q < self.n
use = Window($).near
def mask(b, h, q, k):
    return use(q)

--- code of a method | 3 | 4
class Window:
    def near(self, q):
        return q < $
use = Window().near
def mask(b, h, q, k):
    return use(q)

--- base class | A | C
class A:
    def near(self, q):
        return q
class C:
    def near(self, q):
        return -q
class Window($):
    pass
use = Window()
def mask(b, h, q, k):
    return use.near(q)

--- attribute of a class | 3 | 4
class STATE:
    width = $
def mask(b, h, q, k):
    return q - k < STATE.width

--- slot | 3 | 4
class S:
    __slots__ = ('width',)
STATE = S()
STATE.width = $
def mask(b, h, q, k):
    return q - k < STATE.width

--- property | 3 | 4
class S:
    @property
    def width(self):
        return $
STATE = S()
def mask(b, h, q, k):
    return q - k < STATE.width

--- dataclass | 3 | 4
import dataclasses
@dataclasses.dataclass(frozen=True)
class S:
    width: int
STATE = S($)
def mask(b, h, q, k):
    return q - k < STATE.width

--- default of a dataclass | 3 | 4
import dataclasses
@dataclasses.dataclass
class S:
    width: int = $
def mask(b, h, q, k):
    return q < S().width

--- list of a dataclass's class | 3 | 4
import dataclasses
import typing
@dataclasses.dataclass
class S:
    width: int
    widths: typing.ClassVar = [$]
def mask(b, h, q, k):
    return q < S(1).widths[0]

--- named tuple | 3 | 4
import collections
S = collections.namedtuple('S', 'width')
STATE = S($)
def mask(b, h, q, k):
    return q - k < STATE.width

--- namespace | 3 | 4
import types
STATE = types.SimpleNamespace(width=$)
def mask(b, h, q, k):
    return q - k < STATE.width

--- enum | A | B
import enum
class E(enum.Enum):
    A = 1
    B = 2
KIND = E.$
def mask(b, h, q, k):
    return KIND is E.A

--- value of an enum | 3 | 4
import enum
class E(enum.Enum):
    A = $
KIND = E.A
def mask(b, h, q, k):
    return q < KIND.value

--- number of one's own | 3 | 4
class N(int):
    pass
WIDTH = N($)
def mask(b, h, q, k):
    return q < WIDTH

--- class | int | float
kind = $
def mask(b, h, q, k):
    return kind(q) < k

--- function of the standard library | floor | ceil
import math
use = math.$
def mask(b, h, q, k):
    return use(q) < k

--- imported name | floor | ceil
from math import $ as use
def mask(b, h, q, k):
    return use(q) < k

--- module | math | cmath
import $ as use
def mask(b, h, q, k):
    return use.sqrt(q) < k

--- recursion | 3 | 4
N = $
def mask(b, h, q, k):
    return q < N or mask(b, h, q - N, k)

--- inner function | 3 | 4
N = $
def mask(b, h, q, k):
    def near():
        return q < N
    return near()

--- comprehension | 3 | 4
N = $
def mask(b, h, q, k):
    return [q < N for _ in (1,)][0]

--- attribute of a function | 3 | 4
def mask(b, h, q, k):
    return q < mask.width
mask.width = $

--- cached helper | 3 | 4
import functools
@functools.cache
def near(q):
    return q < $
def mask(b, h, q, k):
    return near(q)

--- method of a table | 1, 2 | 3, 4
use = ($).__getitem__
def mask(b, h, q, k):
    return q < use(0)

--- inherited method of a standard class | 2 | 3
import fractions
class F(fractions.Fraction):
    pass
use = F(1, $).limit_denominator
def mask(b, h, q, k):
    return q < use(9)

--- object that wraps a standard function | 3 | 4
import functools
import math
class Near:
    def __init__(self, f, n):
        functools.update_wrapper(self, f)
        self.n = n
    def __call__(self, q):
        return q < self.n
use = Near(math.floor, $)
def mask(b, h, q, k):
    return use(q)

--- partial that has the name of a standard function | 3 | 4
import functools
import math
def near(n, q):
    return q < n
use = functools.update_wrapper(functools.partial(near, $), math.floor)
def mask(b, h, q, k):
    return use(q)

--- object that says it is a function | 3 | 4
def near(q):
    return q
class Proxy:
    def __init__(self, f):
        self.__dict__['f'] = f
    @property
    def __class__(self):
        return type(self.f)
    def __getattr__(self, name):
        return getattr(self.f, name)
    def __call__(self, q):
        return self.f(q) < $
use = Proxy(near)
def mask(b, h, q, k):
    return use(q)

--- combined flag | A | B
import enum
class F(enum.IntFlag):
    A = 1
    B = 2
    C = 4
KIND = F.C | F.$
def mask(b, h, q, k):
    return q & KIND

--- flag without a name | 8 | 16
import enum
class F(enum.IntFlag):
    A = 1
KIND = F($)
def mask(b, h, q, k):
    return q & KIND

--- attribute of an enum's member | 3 | 4
import enum
class E(enum.Enum):
    A = 1
E.A.width = $
KIND = E.A
def mask(b, h, q, k):
    return q < KIND.width

--- attribute of an enum | 3 | 4
import enum
class E(enum.Enum):
    A = 1
E.width = $
def mask(b, h, q, k):
    return q < E.width

--- other name of an enum's member | A | B
import enum
class E(enum.Enum):
    A = 1
    B = 2
    C = $
def mask(b, h, q, k):
    return q < E['C'].value

--- metaclass | 3 | 4
class Meta(type):
    @property
    def width(cls):
        return $
class S(metaclass=Meta):
    pass
def mask(b, h, q, k):
    return q < S.width

--- class that is made in a call | 3 | 4
import dataclasses
S = dataclasses.make_dataclass('S', [('n', int, $)])
def mask(b, h, q, k):
    return q < S().n

--- class that is made by the standard library | 3 | 4
import types
S = types.new_class('S', (), {}, lambda names: names.update(n=$))
def mask(b, h, q, k):
    return q < S.n

--- private slot | 3 | 4
class S:
    __slots__ = ('__n',)
    def __init__(self, n):
        self.__n = n
    def near(self, q):
        return q < self.__n
use = S($)
def mask(b, h, q, k):
    return use.near(q)

--- string that is shown otherwise | 'a' | 'b'
class S(str):
    def __str__(self):
        return 'one'
NAME = S($)
def mask(b, h, q, k):
    return q < ord(NAME[0])

--- list that is read otherwise | 3 | 4
class L(list):
    def __iter__(self):
        return iter(())
N = L([$])
def mask(b, h, q, k):
    return q < N[0]

--- comparison of a dataclass | True | False
import dataclasses
@dataclasses.dataclass(eq=$)
class S:
    n: int
def mask(b, h, q, k):
    return q < (S(1) == S(1))

--- field of a dataclass that is compared | True | False
import dataclasses
@dataclasses.dataclass
class S:
    n: int = dataclasses.field(default=0, compare=$)
def mask(b, h, q, k):
    return q < (S(1) == S(2))

--- argument of a dataclass | a: dataclasses.InitVar[int]; b: int | b: int; a: dataclasses.InitVar[int]
import dataclasses
@dataclasses.dataclass
class S:
    $
    def __post_init__(self, a):
        self.n = 10 * a
def mask(b, h, q, k):
    return q < S(1, 2).n

--- places in a pattern | 'a', 'b' | 'b', 'a'
class S:
    __match_args__ = ($)
    a = 1
    b = 2
def mask(b, h, q, k):
    match S():
        case S(n, m):
            return q < n

--- default that is a lambda, of a lambda | 3 | 4
N = $
mask = lambda b, h, q, k, f=(lambda q: q): f(q) < N

--- one of two lambdas whose constant is worked out | a | c
a, c = lambda b, h, q, k: q + 2 * 3, lambda b, h, q, k: q - 6
mask = $

--- name that is imported and put in place | math | cmath
import math
import cmath
from math import sqrt
sqrt = $.sqrt
def mask(b, h, q, k):
    return sqrt(q) < k

--- captured method of the standard library | 3 | 4
import fractions
def make(f):
    def mask(b, h, q, k):
        return q < f()
    return mask
mask = make(fractions.Fraction(1, $).as_integer_ratio)

--- builtin of one's own | 3 | 4
import builtins
builtins.fa4_precompile_width = $
def mask(b, h, q, k):
    return q < fa4_precompile_width

--- private attribute of a function | 3 | 4
def mask(b, h, q, k):
    return q < mask._width
mask._width = $

--- function that another one says it wraps | a | c
def a(q):
    return q
def c(q):
    return -q
def near(q):
    return q
near.__wrapped__ = $
def mask(b, h, q, k):
    return near.__wrapped__(q) < k

--- name of a class's body | 3 | 4
N = $
def mask(b, h, q, k):
    class S:
        N = N
    return q < S.N

--- name that is captured, and of the module elsewhere | 3 | 4
n = $
def make(n):
    def mask(b, h, q, k):
        def near():
            global n
            return q < n
        return near() and n
    return mask
mask = make(1)

--- slice of objects | 3 | 4
class S:
    def __init__(self, n):
        self.n = n
    def __repr__(self):
        return 'S'
N = slice(S($))
def mask(b, h, q, k):
    return q < N.stop.n

--- sign of what is no number | math.nan | -math.nan
import math
N = $
def mask(b, h, q, k):
    return q < N

--- names with dots | N(a=N(b=1)) | N(**{'a': N(), 'a.b': 1})
import types
N = types.SimpleNamespace
STATE = $
def mask(b, h, q, k):
    return q < len(repr(STATE))

--- protocol, generic and abstract classes | 3 | 4
import abc
import typing
T = typing.TypeVar('T')
@typing.runtime_checkable
class P(typing.Protocol):
    n: int
class G(typing.Generic[T]):
    n = $
class A(abc.ABC):
    @abc.abstractmethod
    def near(self): ...
class Near(P, G[int], A):
    def near(self):
        return 3
def mask(b, h, q, k):
    return q < Near.n

--- enum that makes its members | 3 | 4
import enum
class E(enum.Enum):
    def _generate_next_value_(name, start, count, last):
        return 5
    A = 1, 2
    B = enum.auto()
    def __new__(cls, one, other=$):
        made = object.__new__(cls)
        made._value_ = other
        return made
    @property
    def width(self):
        return self.value
def mask(b, h, q, k):
    return q < E.B.width

--- flags | 3 | 4
import enum
class F(enum.Flag):
    A = enum.auto()
    B = enum.auto()
    AB = A | B
class I(enum.IntEnum):
    A = $
class S(str, enum.Enum):
    A = 'a'
KINDS = F.A | F.B, I.A, S.A
def mask(b, h, q, k):
    return KINDS[1] < q

--- property that is kept | 3 | 4
import functools
class S:
    @functools.cached_property
    def width(self):
        return $
STATE = S()
def mask(b, h, q, k):
    return q < STATE.width

--- lambda among others, with a tuple | (1, 2) | (3, 4)
a, mask = (lambda b, h, q, k: q in (5, 6)), (lambda b, h, q, k: q in $)

--- string that begins further to the left | 3 | 4
def make():
    def mask(b, h, q, k):
        '''
near
'''
        return q < $
    return mask
mask = make()
"""


def _parsed(block: str) -> Pair:
    head, _, text = block.partition("\n")
    name, one, other = head.split(" | ")
    return Pair(name, text.strip() + "\n", one, other)


PAIRS = [_parsed(block) for block in _PAIRS.split("--- ")[1:]]
