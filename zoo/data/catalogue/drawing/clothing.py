"""How clothes are drawn: laid flat, seen from the front."""

from zoo.data.catalogue.drawing.canvas import BRASS, STEEL, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse, mirrored
from zoo.data.catalogue.drawing.tones import Tones, inside, tones

# The neckline's lowest point between the shoulders, and how the edge runs there from (40, 14) to (60, 14).
_NECKS = {"圆领": "Q42,24 50,24 Q58,24 60,14", "V领": "L50,33 L60,14", "方领": "L41,26 L59,26 L60,14"}
_SLEEVES = {"无袖": 0, "短袖": 20, "长袖": 52}


def dress(c: Canvas) -> None:
    """A bodice, a waistband and a wide skirt."""
    hem, wide = {"短款": (82, 82), "长款": (118, 80)}[c.detail("长度")]
    neck = _NECKS[c.detail("领型")]
    _sleeves(c, _SLEEVES[c.detail("袖长")], c.second)
    c.panel(
        f"M36,49 L64,49 Q{wide - 6},{hem - 20} {wide},{hem} Q50,{hem + 7} {100 - wide},{hem} "
        f"Q{106 - wide},{hem - 20} 36,49 Z"
    )
    for x in (40, 47, 53, 60):
        c.line(f"M{x},54 Q{x + (x - 50) * 0.5:g},70 {x + (x - 50) * (wide - 60) / 16:g},{hem}")
    c.panel(f"M33,14 L40,14 {neck} L67,14 Q65,22 68,30 Q64,40 64,48 L36,48 Q36,40 32,30 Q35,22 33,14 Z")
    c.panel("M35,46 L65,46 L65,51 L35,51 Z", c.second, plain=True)
    c.line(f"M40,14 {neck}", width=1.6)


def skirt(c: Canvas) -> None:
    """A waistband over a skirt that is flared, pleated or narrow."""
    hem = {"短款": 68, "长款": 104}[c.detail("长度")]
    shape = c.detail("裙型")
    half = {"A字裙": 34, "百褶裙": 38, "包臀裙": 21}[shape]
    hip = {"A字裙": 22, "百褶裙": 24, "包臀裙": 25}[shape]
    if shape == "百褶裙":
        for pleat in range(8):
            left, right = (-1 + pleat / 4, -1 + (pleat + 1) / 4)
            c.panel(
                f"M{50 + 18 * left:g},22 L{50 + 18 * right:g},22 L{50 + half * right:g},{hem} "
                f"L{50 + half * left + 1.5:g},{hem - 2} Z",
                tilt=-12 * (left + right) / 2,
            )
    else:
        c.panel(
            f"M32,22 L68,22 Q{50 + hip},36 {50 + half},{hem} Q50,{hem + (5 if half > 30 else 0)} {50 - half},{hem} "
            f"Q{50 - hip},36 32,22 Z"
        )
    if shape == "A字裙":
        for x in (-9, 0, 9):
            c.line(f"M{50 + x},{hem - 26} Q{50 + x * 1.3:g},{hem - 12} {50 + x * 1.7:g},{hem}")
    if shape == "包臀裙":
        c.line(f"M50,{hem - 18} L50,{hem}", width=1.4)
        c.line("M40,22 L40,32 M60,22 L60,32")
    c.panel("M32,14 L68,14 L69,22 L31,22 Z", c.second, plain=True)


def t_shirt(c: Canvas) -> None:
    """A tee with ribbed neck, and a pocket where it has one."""
    neck = _NECKS[c.detail("领型")]
    _sleeves(c, _SLEEVES[c.detail("袖长")], c.second)
    _body(c, f"M40,14 {neck}")
    c.line(f"M40,14 {neck}", c.second.outline if c.second else None, width=2.6)
    c.line("M29,80 L71,80")
    if c.detail("口袋") == "有口袋":
        _pocket(c, 54, c.second)


def shirt(c: Canvas) -> None:
    """A shirt with collar, buttons and cuffs."""
    length = _SLEEVES[c.detail("袖长")]
    _sleeves(c, length, cuff=c.second if length > 30 else None)
    _body(c, "M40,14 L50,20 L60,14")
    c.panel("M47.4,20 L52.6,20 L52.6,86.5 L47.4,86.5 Z", c.second)
    c.panel("M40,12 Q50,8 60,12 L59,17 L50,19 L41,17 Z", c.second or c.main, plain=True)
    c.both("M40,11 L34,19 L43,29 L50,19 Q42,17 40,11 Z", c.second)
    for y in (30, 42, 54, 66, 78):
        c.panel(ellipse(50, y, 1.5), STEEL, edge=0.6)
    if c.detail("口袋") == "有口袋":
        _pocket(c, 55)


def hoodie(c: Canvas) -> None:
    """A sweatshirt with a kangaroo pocket, ribbed hems and a hood."""
    hood = c.detail("领型") == "连帽"
    rib = c.second or c.main
    if hood:
        c.panel("M32,20 Q28,2 50,0 Q72,2 68,20 Q60,28 50,30 Q40,28 32,20 Z", c.second)
    _sleeves(c, 50, cuff=rib)
    _body(c, "M36,15 Q42,27 50,28 Q58,27 64,15" if hood else "M40,14 Q43,22 50,22 Q57,22 60,14")
    c.panel("M28,80 L72,80 L71,88 L29,88 Z", rib, plain=True)
    for x in range(33, 70, 5):
        c.line(f"M{x},81 L{x},87", rib)
    if hood:
        c.panel("M37,15 Q36,6 50,5 Q64,6 63,15 Q58,24 50,25 Q42,24 37,15 Z", inside(rib))
        c.both("M33,14 Q36,26 50,31 L50,26 Q41,22 37,12 Z", rib)
        c.line("M45,28 L44,42 M55,28 L56,40", "#ffffff" if c.main.contrast == "#ffffff" else c.main.outline, width=1.6)
    else:
        c.line("M40,14 Q43,23 50,23 Q57,23 60,14", rib, width=3.4)
    if c.detail("开合") == "拉链":
        c.line(f"M50,{29 if hood else 23} L50,88", STEEL.outline, width=2.6)
        c.line(f"M50,{29 if hood else 23} L50,88", STEEL.light, width=1.2, dash="1.2 1.2")
        c.both("M47,58 L38,58 L32,74 L47,74 Z")
    else:
        c.panel("M38,56 L62,56 L69,75 L31,75 Z")


def puffer(c: Canvas) -> None:
    """A down jacket: quilted rows, a zip, a hood or a high collar."""
    rows = {"短款": 5, "长款": 8}[c.detail("长度")]
    hem = 20 + 13 * rows
    if c.detail("领型") == "连帽":
        c.panel("M33,18 Q28,0 50,-2 Q72,0 67,18 Q60,26 50,26 Q40,26 33,18 Z")
        c.panel("M38,16 Q37,5 50,4 Q63,5 62,16 Q56,22 50,22 Q44,22 38,16 Z", inside(c.second or c.main))
    for step in range(4):  # from the cuff up, each over the one below
        y, x = 62 - 14 * step, 15 + 4.2 * step
        c.both(
            f"M{x:g},{y} Q{x - 3:g},{y + 8} {x - 3.5:g},{y + 15} Q{x + 6:g},{y + 20} {x + 12:g},{y + 15} "
            f"L{x + 15:g},{y} Q{x + 8:g},{y - 5} {x:g},{y} Z",
            c.second,
            tilt=16,
        )
    for row in range(rows):
        top = 16 + 13 * row
        inner = 33 if row == 0 else 30
        c.panel(
            f"M{inner},{top} Q50,{top - 3} {100 - inner},{top} "
            f"Q{75},{top + 7} 70,{top + 14} Q50,{top + 17} 30,{top + 14} "
            f"Q25,{top + 7} {inner},{top} Z"
        )
    c.line(f"M50,16 L50,{hem - 1}", c.main.outline, width=3.4)
    c.line(f"M50,16 L50,{hem - 1}", STEEL.light, width=1.5, dash="1.4 1.2")
    if c.detail("领型") == "立领":
        c.panel("M37,18 L38,5 Q50,2 62,5 L63,18 Q50,22 37,18 Z", c.second)
        c.line("M50,4 L50,20", c.second, width=1.4)
    c.panel(box(48.4, 22, 3.2, 7, 1.4), STEEL, edge=0.6)


def blazer(c: Canvas) -> None:
    """A suit jacket: lapels, buttons, flap pockets, a white shirt with a tie."""
    _sleeves(c, 54)
    for x in (-1, 1):
        for y in (59, 62):
            c.panel(ellipse(50 + x * (35.5 - (62 - y) * 0.2), y + 3, 1), BRASS, edge=0.5)
    double = c.detail("扣型") == "双排扣"
    c.panel("M38,12 L62,12 L56,54 L44,54 Z", _SHIRT)
    c.panel("M47,17 L53,17 L54.5,44 L50,52 L45.5,44 Z", c.second or _TIE)
    c.panel("M46.5,15 L53.5,15 L52,20 L48,20 Z", c.second or _TIE)
    left = "M37,12 Q31,13 28,16 L30,40 Q32,54 27,86 Q38,90 47,89 L52,80 L52,52 Z"
    c.panel(mirrored(left), tilt=-4)
    c.panel(left, tilt=4)
    c.both("M37,11 L29,26 L35,28 L32,33 L50,56 L51,52 Q42,32 40,11 Z", tilt=24)
    for y in (60, 70):
        for x in (44, 56) if double else (50,):
            c.panel(ellipse(x, y, 1.9), BRASS, edge=0.6)
    c.both("M31,66 L42,67 L42,72 L31,71 Z")
    c.line("M62,36 L69,35", width=1.8)


def trousers(c: Canvas) -> None:
    """Long trousers with waistband, fly and pockets."""
    knee, hem_in, hem_out = {"直筒裤": (71, 53, 70), "阔腿裤": (77, 52, 86), "紧身裤": (66, 54, 62)}[c.detail("裤型")]
    c.both(f"M50,16 L67,16 Q71,30 {knee},60 L{hem_out},112 L{hem_in},112 L50,42 Z", tilt=4)
    hem = f"M{hem_in + 0.5},107 L{hem_out - 0.3},107"
    c.line(f"{hem} {mirrored(hem)}")
    _waist(c)
    if c.detail("裤型") == "直筒裤":
        c.line("M60,48 L61.5,104 M40,48 L38.5,104")


def shorts(c: Canvas) -> None:
    """Short trousers with turned-up hems; a cord or a button at the waist."""
    c.both("M50,16 L68,16 Q73,30 80,58 L52,64 L50,42 Z", tilt=8)
    c.both("M80,58 L81.5,64 L52.5,70.5 L52,64 Z", c.second, plain=True)
    _waist(c, is_corded=c.detail("腰部") == "抽绳")


def _pocket(c: Canvas, x: float, of: Tones | None = None) -> None:
    path = f"M{x},35 L{x + 14},35 L{x + 14},48 L{x + 7},52 L{x},48 Z"
    c.panel(path, of)
    c.line(f"{path} M{x},39 L{x + 14},39", of, width=1.3)


def _waist(c: Canvas, *, is_corded: bool = False) -> None:
    c.line("M50,17 L50,42", width=1.1)
    c.panel("M32,9 L68,9 L68.5,17 L31.5,17 Z", c.second, plain=True)
    if is_corded:
        for x in range(36, 66, 4):
            c.line(f"M{x},10 L{x},16", c.second)
        cord = "#ffffff" if (c.second or c.main).contrast == "#ffffff" else c.main.outline
        c.line("M49,14 Q42,20 45,33 M51,14 Q58,20 54,31", cord, width=2)
        c.line("M49,14 Q40,14 43,19 Q46,20 50,14 Q60,14 57,19 Q54,20 51,14", cord, width=1.6)
        return
    c.line("M53,17 Q55,34 50,38")
    c.line("M64,17 Q64,25 70,27 M36,17 Q36,25 30,27", width=1.2)
    for x in (37, 60):
        c.panel(box(x, 8, 3, 10, 0.6))
    c.panel(ellipse(50, 13, 1.9), BRASS, edge=0.6)


def _sleeves(c: Canvas, length: float, of: Tones | None = None, cuff: Tones | None = None) -> None:
    """Sleeves from the shoulders of a top at (33, 14), hanging aslant; with a cuff, or a hem."""
    if not length:
        return
    x, y = 33 - 0.4 * length, 16 + length
    c.both(f"M36,14 Q28,15 24,22 L{x - 8:g},{y - 3:g} L{x + 4:g},{y + 3:g} L34,36 Z", of, tilt=22)
    for _ in c.pair():
        if cuff:
            c.panel(f"M{x - 7:g},{y - 5:g} L{x - 9.5:g},{y + 2:g} L{x + 2:g},{y + 7:g} L{x + 4.5:g},{y:g} Z", cuff)
        else:
            c.line(f"M{x - 6.6:g},{y - 6:g} L{x + 4.8:g},{y - 0.6:g}", of)


def _body(c: Canvas, neck: str) -> None:
    """The straight body of a top; its neck runs from the left to the right."""
    c.panel(f"{neck} L67,14 Q71,15 73,19 L71,36 Q70,60 72,86 Q50,89 28,86 Q30,60 29,36 L27,19 Q29,15 33,14 Z")


_SHIRT = tones("#f7f7f5")
_TIE = tones("#5a6270")
