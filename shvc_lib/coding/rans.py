"""Asymmetric numeral systems from scratch: the whole coder in two arithmetic lines.

A message is one big integer, kept as a 64-bit `head` and a list of 32-bit `tail` words. Pushing a symbol whose model
gives it the interval [start, start + freq) out of 2^24 replaces the integer x by

    x' = (x // freq) * 2^24 + start + x % freq                                                  (Duda 2009, rANS)

so x grows by log2(2^24 / freq) bits: the symbol's ideal codelength. Popping inverts it: x' % 2^24 falls into the
symbol's interval and therefore names the symbol, and x = (x' // 2^24) * freq + x' % 2^24 - start.

The head stays in [2^32, 2^64): before a push would overflow it, its low 32 bits move to the tail; when a pop lets it fall
below 2^32, the tail's last word moves back. A head of 2^32 and no tail is the empty message. The words are the same, one by
one, as those of `constriction`'s ANS coder, which `shvc_lib.coding.BitStack` uses. Taught in chapter 1, *Codes*.
"""

from ..errors import InvalidInput, OutOfBits
from .checks import integer, integers

PRECISION = 24  # bits of a model's integer probabilities
TOTAL = 1 << PRECISION  # what the masses of a model sum to
WORD = 32  # bits moved between head and tail at a time
EMPTY = 1 << WORD  # the head of an empty message


def _interval(start, freq):
    """An interval of [0, 2^24) as Python integers: numpy's would overflow in the coder's arithmetic."""
    start, freq = integer("start", start), integer("freq", freq)
    if not (0 <= start and 1 <= freq and start + freq <= TOTAL):
        raise InvalidInput(f"[{start}, {start} + {freq}) is no interval of [0, 2^{PRECISION})")
    return start, freq


class RANS:
    """A last-in-first-out message of Python integers (slow, exact, short).

    `words`: unsigned 32-bit integers as given by `words()`, lowest first; by default the empty message.
    """

    def __init__(self, words=(0, 1)):
        words = integers("words", words, 0, EMPTY - 1).reshape(-1).tolist()
        if len(words) < 2 or words[-1] == 0:
            raise InvalidInput("words must be at least two 32-bit integers, the last of them not zero")
        self.tail = words[:-2]
        self.head = words[-1] << WORD | words[-2]

    def push(self, start, freq):
        """Append the symbol whose interval is [start, start + freq) out of 2^24."""
        start, freq = _interval(start, freq)
        if self.head >= freq << (2 * WORD - PRECISION):  # the new head would not fit into 64 bits
            self.tail.append(self.head % EMPTY)
            self.head >>= WORD
        self.head = (self.head // freq << PRECISION) + start + self.head % freq

    def peek(self):
        """The number in [0, 2^24) that names the next symbol: the symbol whose interval holds it."""
        return self.head % TOTAL

    def pop(self, start, freq):
        """Remove the symbol that `peek` named, given its interval. Raises OutOfBits when the message is exhausted."""
        start, freq = _interval(start, freq)
        if not start <= self.peek() < start + freq:
            raise InvalidInput(f"the next symbol's interval holds {self.peek()}, but [{start}, {start + freq}) was given")
        head = (self.head >> PRECISION) * freq + self.peek() - start
        if head < EMPTY:
            if not self.tail:
                raise OutOfBits("the message is exhausted: it holds fewer bits than this pop needs")
            head = head << WORD | self.tail.pop()
        self.head = head

    def words(self):
        """The message as a list of 32-bit integers: the tail, then the head's low and high word."""
        return [*self.tail, self.head % EMPTY, self.head >> WORD]
