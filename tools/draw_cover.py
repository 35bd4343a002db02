"""Draw the book's cover: bits-back coding on a stack of bits, with numbers small enough to check by hand.

Sixteen painters share thirty-two pictures. Painter z knows the eight pictures 2z, ..., 2z + 7 (modulo 32), so every
picture is known to four painters. All painters are equally likely, and each paints any of his eight equally often;
hence every picture has probability 4 x 1/16 x 1/8 = 1/32 and is worth 5 bits.

The drawing is not a sketch. `send` runs the four steps on a list of bits, `receive` undoes them, and the zeros and
ones in the picture are the ones these two functions exchange.

    python tools/draw_cover.py            # rewrites book/figures/cover-light.svg and cover-dark.svg
"""

from pathlib import Path

FIGURES = Path(__file__).resolve().parent.parent / "book" / "figures"
PAINTERS, PICTURES, KNOWN = 16, 32, 8


def knows(painter):
    """The eight pictures of one painter, in order."""
    return [(2 * painter + i) % PICTURES for i in range(KNOWN)]


def painters_of(picture):
    """The four painters who know one picture, in order."""
    return [painter for painter in range(PAINTERS) if picture in knows(painter)]


def push(stack, value, bits):
    """Write a number below 2**bits on top of the stack, lowest bit last."""
    return stack + [value >> i & 1 for i in reversed(range(bits))]


def pop(stack, bits):
    """Take `bits` bits off the top; return what is left, and the number they spell."""
    left, taken = stack[: len(stack) - bits], stack[len(stack) - bits:]
    return left, sum(bit << i for i, bit in enumerate(reversed(taken)))


def send(stack, picture):
    """Bits-back: the stack after each of the four steps, and the painter that was named."""
    after_taking, choice = pop(stack, 2)
    painter = painters_of(picture)[choice]
    with_picture = push(after_taking, knows(painter).index(picture), 3)
    with_painter = push(with_picture, painter, 4)
    return [stack, after_taking, with_picture, with_painter], painter


def receive(stack):
    """The four steps backwards: the picture, and the stack as it was before `send`."""
    stack, painter = pop(stack, 4)
    stack, index = pop(stack, 3)
    picture = knows(painter)[index]
    return picture, push(stack, painters_of(picture).index(painter), 2)


# --- drawing -----------------------------------------------------------------------------------------------------
LIGHT = dict(ink="#1f2328", faint="#6e7781", cell="#e6e8eb", cell_ink="#424a53",
             taken="#E69F00", taken_ink="#1f1400", picture="#0072B2", picture_ink="#ffffff", painter="#00795a",
             painter_ink="#ffffff")
DARK = dict(ink="#e6edf3", faint="#9aa4af", cell="#39414b", cell_ink="#d0d7de",
            taken="#E69F00", taken_ink="#1f1400", picture="#56B4E9", picture_ink="#04141f", painter="#3fc79a",
            painter_ink="#04170f")
WIDTH, HEIGHT, COLUMN, FLOOR = 704, 436, 168, 336
CELL_W, CELL_H, PITCH = 66, 24, 27
STARTING_BITS = [1, 0, 0, 1, 1, 0]
PICTURE = 21


def text(x, y, words, colour, size=23, anchor="middle", weight="normal"):
    return (f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{words}</text>')


def cell(x, level, bit, fill, ink, lift=0):
    """One bit of a stack, `level` cells above the floor."""
    y = FLOOR - (level + 1) * PITCH - lift
    return (f'<rect x="{x - CELL_W / 2:g}" y="{y:g}" width="{CELL_W}" height="{CELL_H}" rx="4" fill="{fill}"/>'
            f'<text x="{x}" y="{y + 18:g}" fill="{ink}" font-size="18" text-anchor="middle" '
            f'font-family="ui-monospace, Menlo, Consolas, monospace">{bit}</text>')


def draw(colours):
    """The whole picture as SVG text, in one of the two palettes."""
    c = colours
    before, after_taking, with_picture, with_painter = send(STARTING_BITS, PICTURE)[0]
    kept, start = len(after_taking), len(before)
    middle = [COLUMN * (i + 0.5) - 2 for i in range(4)]
    start_y = FLOOR - start * PITCH + (PITCH - CELL_H) / 2 - 3
    parts = []

    def stack(column, bits, kinds):
        for level, (bit, kind) in enumerate(zip(bits, kinds)):
            parts.append(cell(middle[column], level, bit, c[kind], c[kind + "_ink"]))

    stack(0, before, ["cell"] * kept + ["taken"] * 2)
    stack(1, after_taking, ["cell"] * kept)
    stack(2, with_picture, ["cell"] * kept + ["picture"] * 3)
    stack(3, with_painter, ["cell"] * kept + ["picture"] * 3 + ["painter"] * 4)

    # The two bits that leave the stack: empty places where they were, the bits themselves above, an arrow between.
    for level in range(kept, start):
        y = FLOOR - (level + 1) * PITCH
        parts.append(f'<rect x="{middle[1] - CELL_W / 2 + 1:g}" y="{y + 1:g}" width="{CELL_W - 2}" height="{CELL_H - 2}" '
                     f'rx="4" fill="none" stroke="{c["taken"]}" stroke-width="2" stroke-dasharray="5 4"/>')
        parts.append(cell(middle[1], level, before[level], c["taken"], c["taken_ink"], lift=92))
    x, top = middle[1], FLOOR - start * PITCH
    parts.append(f'<path d="M{x:g} {top - 8:g} v-19 m-8 8 l8 -8 l8 8" fill="none" stroke="{c["taken"]}" '
                 'stroke-width="3" stroke-linecap="round" stroke-linejoin="round"/>')

    # What the two bits do: they choose which painter is named.
    x1, y1 = middle[1] + CELL_W / 2 + 6, FLOOR - start * PITCH - 92
    x2, y2 = middle[3] - CELL_W / 2 - 8, FLOOR - (len(with_painter) - 2) * PITCH + 8
    parts.append(f'<path d="M{x1:g} {y1:g} C{x1 + 70:g} {y1 - 26:g} {x2 - 70:g} {y2 - 46:g} {x2:g} {y2:g} m-14 -1 l14 1 l-5 -13" '
                 f'fill="none" stroke="{c["taken"]}" stroke-width="3" stroke-linecap="round" stroke-linejoin="round"/>')

    # The height at the start, carried across, and what has been added to it at the end.
    parts.append(f'<path d="M12 {start_y:g} H{WIDTH - 4}" stroke="{c["faint"]}" stroke-width="1.5" stroke-dasharray="2 6" '
                 'stroke-linecap="round"/>')
    end_y = FLOOR - len(with_painter) * PITCH
    x = middle[3] + CELL_W / 2 + 8
    parts.append(f'<path d="M{x:g} {end_y + 1:g} h7 V{start_y:g} h-7" fill="none" stroke="{c["ink"]}" stroke-width="2"/>')
    parts.append(text(x + 14, (end_y + start_y) / 2 + 11, f"+{len(with_painter) - start}", c["ink"], 34, "start", "bold"))

    parts.append(f'<path d="M8 {FLOOR + 1} H{WIDTH - 8}" stroke="{c["ink"]}" stroke-width="2"/>')
    captions = [("the stack:", "earlier bits", ""), ("take 2 bits:", "they choose", "the painter"),
                ("write 3 bits:", "the picture", ""), ("write 4 bits:", "the painter", "")]
    for x, lines in zip(middle, captions):
        for i, line in enumerate(lines):
            if line:
                parts.append(text(f"{x:g}", FLOOR + 32 + 27 * i, line, c["ink"], weight="bold" if i == 0 else "normal"))
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n{body}\n</svg>\n')


def main():
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, colours in (("cover-light.svg", LIGHT), ("cover-dark.svg", DARK)):
        (FIGURES / name).write_text(draw(colours), encoding="utf-8")
        print(FIGURES / name)


if __name__ == "__main__":
    main()
