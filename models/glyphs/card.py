"""Writes CARD.md from what the training runs printed.

    python3 card.py --log train.log [--fonts-only-log fonts.log] [--choose-log choose.log] [--demo-log demo.log]
"""

import argparse
import hashlib
import re

import fonts

TEXT = """# Glyph encoder

Turns a picture of one sign (a letter, a symbol, a mark, pen on paper or print) into `[192]` numbers; near means same sign.
Trained by us; shipped so that `graft demo` and the tests need no download.

| | |
|---|---|
| file | `model.onnx`, float32, {n_bytes} bytes, sha256 `{sha256}` |
| input | `image` `[N, 1, 48, 48]`, float, `strokes` output / 255 (paper 0, ink 1) |
| output | `features` `[N, 192]`, both signs; compare by cosine |
| preprocessing | `strokes`, size 48: `strokes.py`, step by step; integer, refuses an empty picture |
| operators | Conv, Clip (ReLU6), Add, GlobalAveragePool, Flatten; batch norm is folded |
| parameters | 392,808 before folding |

## Recipe
```
{command}
```
printed
```
{log}
```
The steps: letters of fonts, their skeletons, and one simulated photo each go through distortions of hand and pen
(`distort.py`), are cropped as `strokes` crops, and train a small ReLU6 residual network (`net.py`) with two losses: softmax
over the letters, and finding each picture's pair among one picture of every class of the batch. A batch holds 8 alphabets, so
that confusable letters meet. Omniglot's characters count once per quarter turn and mirror image as a class of their own. The
weights shipped are an exponential average. Everything is seeded: two runs of 150 steps on
one machine (CPU, PyTorch 2.15) gave the same bytes. {trained}

## Data
Omniglot `background_small` (Lake, Salakhutdinov, Tenenbaum 2015; MIT licence), 8 alphabets. Its `one_shot_runs` are not trained on.

Fonts from Debian, each package's copyright file read by the recipe, which stops if no accepted licence is named there:

| package | licences named in its copyright file |
|---|---|
{font_rows}

Never drawn, because Omniglot's evaluation alphabets use them or descend from them (checked by an assertion in `train.py`):
{evaluation}. Private-use code points are skipped too. Held out for the figures below and the demo: {held_out}.

## Accuracy
The one-shot runs were looked at twice, for an earlier model of 1,500 steps and for three seeds of this one; nothing was chosen
by them: the number of steps is what two cores manage in an hour. +- is half of a 95 % interval over episodes. Float model, by
`evaluate.py`:
{figures}

## Limits
- Photos of things, textures, scenes: bad at it, it sees strokes only. Use MobileNetV2.
- One sign per picture, spanning at least a quarter of its longer side; ink areas wider than a quarter of the picture are
  taken for paper. A sign that runs along the picture's border loses that part.
- Turned signs are other signs: beyond about 15 degrees it does not promise to know them again. Mirror images likewise.
- Headline and cursive styles whose letters have another shape are other signs as well.
- The held-out figures are on rendered letters, the camera figures on simulated pictures. The simulator (`camera.py`) also made
  a part of the training pictures and the demo, so real cameras may do worse; no figure here is from a real one.
{also}
## Demo pictures
`demo/`, made by `make_demo.py`, seed 5, ours, under the licence of this repository: penned letters of scripts that were not
trained on, from {demo}.
{demo_check}

## Licence
The weights and pictures are ours and carry the licence of this repository (MIT or Apache-2.0). No font file, outline or
Omniglot drawing is included.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True)
    parser.add_argument("--command", default="python3 train.py --omniglot ../../../shared/assets/data/omniglot --steps 7000 --seed 1")
    parser.add_argument("--trained", default="", help="what trained it: machine, versions, time")
    parser.add_argument("--fonts-only-log")
    parser.add_argument("--choose-log")
    parser.add_argument("--demo-log")
    parser.add_argument("--also", default="")
    parser.add_argument("--model", default="model.onnx")
    parser.add_argument("--out", default="CARD.md")
    args = parser.parse_args()
    lines = read(args.log)
    with open(args.model, "rb") as file:
        model = file.read()
    figures = [f"- {line}" for line in lines if is_figure(line)]
    for title, path in (("Fonts only", args.fonts_only_log), ("Alphabets left out of training (`--choose`)", args.choose_log)):
        if path:
            found = read(path)
            steps = [line for line in found if re.match(r"\d+ steps in", line)]
            figures += [f"\n{title}, {', '.join(steps)}:"] + [f"- {line}" for line in found if is_figure(line)]
    demo = read(args.demo_log) if args.demo_log else []
    designs = next((line.split("designs: ")[1] for line in demo if "designs: " in line), "the fonts above")
    text = TEXT.format(
        n_bytes=len(model),
        sha256=hashlib.sha256(model).hexdigest(),
        command=args.command,
        trained=args.trained,
        log="\n".join(line for line in lines if not is_figure(line) and keep(line)),
        font_rows="\n".join(f"| {package} | {named} |" for package, named in fonts.licences().items()),
        evaluation=", ".join(sorted(fonts.EVALUATION_SCRIPTS)),
        held_out=", ".join(sorted(fonts.HELD_OUT_SCRIPTS)),
        figures="\n".join(figures),
        also=args.also + "\n" if args.also else "",
        demo=designs,
        demo_check="\n".join(f"- {line}" for line in demo if "shots," in line),
    )
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(text)


def read(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip() for line in file]


def is_figure(line):
    return bool(re.match(r"(one-shot runs|held-out scripts|alphabets left out)", line))


def keep(line):
    return bool(re.match(r"(fonts:|Omniglot:|\d+ parameters|\d+ steps|step \d*[05]00 )", line))


if __name__ == "__main__":
    main()
