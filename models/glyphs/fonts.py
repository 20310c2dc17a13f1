"""Letters from Debian's fonts: which packages, which scripts, and the pictures `[64, 64]` u8 of their letters.

A package is used only if its copyright file names a licence from `ACCEPTED`. Letters of `EVALUATION_SCRIPTS` are never drawn,
nor are private-use code points, where fonts keep invented scripts.
"""

import functools
import re
import subprocess
import unicodedata
from collections import defaultdict

import numpy as np
from fontTools import unicodedata as ucd
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageFont

CANVAS, BOX = 64, 50  # pixels: side of a stored picture, longest side of the letter in it

# `apt-get install` these.
PACKAGES = """
fonts-noto-core fonts-noto-extra fonts-freefont-ttf fonts-dejavu-core fonts-dejavu-extra fonts-cmu fonts-klee
fonts-yusei-magic fonts-nanum fonts-lxgw-wenkai fonts-seto fonts-ipafont-gothic fonts-ipafont-mincho fonts-khmeros
fonts-sil-mondulkiri fonts-sil-padauk fonts-sil-scheherazade fonts-hosny-amiri fonts-sil-annapurna fonts-sil-akatab
fonts-sil-tagmukay fonts-sil-nuosusil fonts-sil-taiheritagepro fonts-sil-zaghawa-beria fonts-sil-sophia-nubian
fonts-sil-shimenkan fonts-sil-mingzat fonts-lohit-deva fonts-lohit-gujr fonts-lohit-taml fonts-lohit-telu
fonts-samyak-gujr fonts-samyak-taml fonts-meera-inimai fonts-pagul fonts-gfs-solomos fonts-junicode fonts-humor-sans
fonts-dancingscript fonts-comic-neue fonts-linuxlibertine fonts-dkg-handwriting fonts-kristi fonts-stix
fonts-oflb-asana-math fonts-bpg-georgian fonts-tlwg-garuda-ttf fonts-tlwg-kinnari-ttf fonts-tlwg-laksaman-ttf
fonts-tlwg-loma-ttf fonts-tlwg-mono-ttf fonts-tlwg-norasi-ttf fonts-tlwg-purisa-ttf fonts-tlwg-sawasdee-ttf
fonts-tlwg-typist-ttf fonts-tlwg-typo-ttf fonts-tlwg-umpush-ttf fonts-tlwg-waree-ttf
""".split()

ACCEPTED = re.compile(
    r"Open Font License|OFL|font exception|FontException|Font exception|bitstream.?vera|IPA Font License|IPA-1|LGPL", re.I
)

# Scripts of Omniglot's evaluation alphabets, and their close relatives in Unicode. The evaluation set is: Angelic, Atemayar
# Qelisayer, Atlantean, Aurek-Besh, Avesta, Ge'ez, Glagolitic, Gurmukhi, Kannada, Keble, Malayalam, Manipuri, Mongolian, Old
# Church Slavonic (Cyrillic), Oriya, Sylheti, Syriac (Serto), Tengwar, Tibetan, ULOG. Those without an entry here are not in
# Unicode. Bengali letters are out because of Sylheti's use of them, Phags-pa, Marchen, Zanabazar and Soyombo because they
# derive from Tibetan and write Mongolian, Old Uyghur as Mongolian's parent.
EVALUATION_SCRIPTS = set(
    "Avst Ethi Glag Guru Knda Mlym Mtei Mong Cyrl Cyrs Orya Sylo Beng Syrc Tibt Phag Marc Zanb Soyo Ougr".split()
)

# Never trained on: figures for unseen scripts and the demo pictures come from these.
HELD_OUT_SCRIPTS = set("Thai Geor Khmr Sinh Telu".split())

# Code points, ends included, at which these designs draw the letters of other code points: the modern Georgian letters
# (Mkhedruli) where Unicode has the old capitals (Asomtavruli), whose shapes are others. Seen on the pictures, not by a score.
MISDRAWN = {"bpg": (0x10A0, 0x10C5), "freesans": (0x10A0, 0x10C5), "freeserif": (0x10A0, 0x10C5)}

# Letters per script at most; a script with thousands would crowd out the others.
CAP = defaultdict(lambda: 160, Latn=260, Hani=300, Hang=250, Zyyy=350, Arab=200, Yiii=200, Egyp=120, Xsux=120, Hluw=100)
FONTS_PER_LETTER = 9
STYLE = re.compile(r"(Condensed|Italic|Oblique|ExtraLight|ExtraBold|SemiBold|Medium|Semi|Mono-|UI-|Slanted|Display)", re.I)


def licences():
    """Package -> licence words of its copyright file; raises if a package is missing or not accepted."""
    out = {}
    for package in PACKAGES:
        with open(f"/usr/share/doc/{package}/copyright", encoding="utf-8", errors="replace") as file:
            text = file.read()
        if not ACCEPTED.search(text):
            raise SystemExit(f"{package}: no accepted licence in its copyright file")
        named = sorted({line.split(":", 1)[1].strip() for line in re.findall(r"^License:.*", text, re.M)} - {""})
        out[package] = "; ".join(named) or "SIL Open Font License"
    return out


def files():
    """Font files of the accepted packages, sorted, without condensed, slanted and in-between styles."""
    out = []
    for package in licences():
        listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True).stdout.split("\n")
        out += [f for f in listed if re.search(r"\.(ttf|otf|ttc)$", f, re.I) and not STYLE.search(f.rsplit("/", 1)[1])]
    return sorted(set(out))


@functools.cache
def family(path):
    """Design name: the file name up to its weight."""
    return re.split(r"[-_](?=[A-Z])|-?(Regular|Bold)", path.rsplit("/", 1)[1].rsplit(".", 1)[0])[0].lower()


script_of = functools.cache(ucd.script)
CATEGORIES = set("Ll Lu Lo Lm Nd Nl No Sm So Sc".split())


def letters(path):
    """Code points of the font that are letters, digits or signs of an allowed script -> script."""
    font = TTCollection(path).fonts[0] if path.endswith(".ttc") else TTFont(path, lazy=True)
    out = {}
    for code in font.getBestCmap() or {}:
        char = chr(code)
        category, script = unicodedata.category(char), script_of(char)
        if script in EVALUATION_SCRIPTS | {"Zinh", "Zzzz", "Brai"} or category not in CATEGORIES:
            continue
        if script == "Zyyy" and not (category in {"Nd", "Sm", "Sc"} or 0x2190 <= code <= 0x2BFF):
            continue
        if unicodedata.decomposition(char) and script not in {"Hang"}:
            continue  # compatibility forms, letters with accents: same shape or nearly
        if 0x2800 <= code <= 0x28FF or 0xF900 <= code <= 0xFAFF or 0x1F000 <= code <= 0x1FAFF:
            continue
        out[code] = script
    return out


def collect(seed, skip_scripts=()):
    """Letter -> font files that have it, capped per script and per letter: list of (script, code, [paths])."""
    rng = np.random.default_rng(seed)
    fonts_of, script_by_code = defaultdict(list), {}
    for path in files():
        for code, script in letters(path).items():
            if script not in skip_scripts:
                fonts_of[code].append(path)
                script_by_code[code] = script
    by_script = defaultdict(list)
    for code in sorted(fonts_of):
        by_script[script_by_code[code]].append(code)
    out = []
    for script in sorted(by_script):
        codes = by_script[script]
        if script in {"Hani", "Hang", "Yiii", "Latn", "Zyyy"}:  # those that several designs hold, first
            n_designs = {c: len({family(p) for p in fonts_of[c]}) for c in codes}
            enough = min(4, max(n_designs.values()))
            codes = [c for c in codes if n_designs[c] >= enough]
        if len(codes) > CAP[script]:
            codes = sorted(rng.choice(codes, CAP[script], replace=False))
        for code in codes:
            designs = defaultdict(list)
            for path in fonts_of[code]:
                designs[family(path)].append(path)
            # One file of each design in turn, so that weights of one design do not crowd out other designs.
            queues = [list(rng.permutation(designs[name])) for name in rng.permutation(sorted(designs))]
            chosen = [q[i] for i in range(3) for q in queues if i < len(q)]
            out.append((script, int(code), [str(p) for p in chosen[:FONTS_PER_LETTER]]))
    return out


def render(path, code, pixels=96):
    """The letter alone, `[h, w]` u8, ink 255; None if the font draws nothing."""
    font = load(path, pixels)
    try:
        mask = font.getmask(chr(code), mode="L")
    except OSError:
        return None
    if not mask.size[0] or not mask.size[1]:
        return None
    bitmap = np.asarray(mask, np.uint8).reshape(mask.size[1], mask.size[0])
    ys, xs = np.nonzero(bitmap.max(1) > 40)[0], np.nonzero(bitmap.max(0) > 40)[0]
    if len(ys) == 0 or max(ys[-1] - ys[0], xs[-1] - xs[0]) < 10:
        return None
    return bitmap[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


_LOADED = {}


def load(path, pixels):
    if (path, pixels) not in _LOADED:
        _LOADED[path, pixels] = ImageFont.truetype(path, pixels, layout_engine=ImageFont.Layout.BASIC)
    return _LOADED[path, pixels]


def fit(bitmap):
    """`[h, w]` -> `[64, 64]` with the longer side 50 pixels, centred."""
    h, w = bitmap.shape
    scale = BOX / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = np.asarray(Image.fromarray(bitmap).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR))
    out = np.zeros((CANVAS, CANVAS), np.uint8)
    y, x = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
    out[y : y + size[1], x : x + size[0]] = small
    return out


def pool(seed, skip_scripts=HELD_OUT_SCRIPTS, only=None, min_fonts=1):
    """All pictures: `pictures [n, 64, 64]`, `label [n]`, `design [n]`, and per label (script, code).

    Letters whose picture in some font equals another letter's in the same font share a label (Latin A, Greek Alpha).
    """
    chosen = [(s, c, p) for s, c, p in collect(seed, skip_scripts) if only is None or s in only]
    by_font = defaultdict(list)
    for i, (_, code, paths) in enumerate(chosen):
        for path in paths:
            by_font[path].append((i, code))
    pictures, owner, design, parent = [], [], [], list(range(len(chosen)))
    for path in sorted(by_font):
        seen = {}
        for i, code in by_font[path]:
            first, last = MISDRAWN.get(family(path), (1, 0))
            bitmap = None if first <= code <= last else render(path, code)
            if bitmap is None:
                continue
            picture = fit(bitmap)
            twin = seen.setdefault(picture.tobytes(), i)
            if twin != i:
                a, b = root(parent, twin), root(parent, i)
                parent[max(a, b)] = min(a, b)
                continue
            pictures.append(picture)
            owner.append(i)
            design.append(family(path))
        _LOADED.clear()
    owner = np.array([root(parent, i) for i in owner])
    designs_of = defaultdict(set)
    for name, i in zip(design, owner):
        designs_of[int(i)].add(name)
    keep = [i for i in sorted(designs_of) if len(designs_of[i]) >= min_fonts]
    index = {i: n for n, i in enumerate(keep)}
    at = [k for k, o in enumerate(owner) if int(o) in index]
    names = [chosen[i][:2] for i in keep]
    return np.stack([pictures[k] for k in at]), np.array([index[int(owner[k])] for k in at]), [design[k] for k in at], names


def root(parent, i):
    while parent[i] != i:
        i = parent[i]
    return i


def skeletons(pictures, chunk=1000):
    """Zhang & Suen 1984 thinning, then a soft pen of about 3 pixels: `[n, 64, 64]` u8."""
    from scipy import ndimage

    out = np.empty_like(pictures)
    for start in range(0, len(pictures), chunk):
        thin = zhang_suen(pictures[start : start + chunk] > 110)
        soft = ndimage.gaussian_filter(thin.astype(np.float32), (0, 1.0, 1.0))
        out[start : start + chunk] = np.clip(soft * 255 / 0.35, 0, 255)
    return out


def zhang_suen(ink):
    """`[n, h, w]` bool -> one-pixel lines; pictures that no longer change drop out of the work."""
    ink = ink.copy()
    active = np.arange(len(ink))
    while len(active):
        current, changed = ink[active], np.zeros(len(active), bool)
        for first in (True, False):
            p = np.pad(current, ((0, 0), (1, 1), (1, 1)))
            n, s, w, e = p[:, :-2, 1:-1], p[:, 2:, 1:-1], p[:, 1:-1, :-2], p[:, 1:-1, 2:]
            ring = [n, p[:, :-2, 2:], e, p[:, 2:, 2:], s, p[:, 2:, :-2], w, p[:, :-2, :-2]]
            count = np.zeros(current.shape, np.int8)
            turns = np.zeros(current.shape, np.int8)
            for a, b in zip(ring, ring[1:] + ring[:1]):
                count += a
                turns += ~a & b
            go = current & (count >= 2) & (count <= 6) & (turns == 1)
            go &= ~(n & e & s) & ~(e & s & w) if first else ~(n & e & w) & ~(n & s & w)
            current &= ~go
            changed |= go.any((1, 2))
        ink[active] = current
        active = active[changed]
    return ink
