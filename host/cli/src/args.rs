//! What can be typed, with every help text.
//!
//! Only syntax lives here: values are checked where they are used, so that the same check covers other callers.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// After every `--help`.
const EXIT_CODES: &str = "\
Environment:
  GRAFT_DEVICE    devices where -d is not given, separated by commas
  GRAFT_DATA_DIR  simulated boards and pulled sets (default: ~/.local/share/graft)

Exit codes:
  0 ok                          5 verification failed, previous bundle kept
  1 failed                      6 quality gate missed
  2 wrong usage                 7 some devices failed
  3 no or ambiguous device    130 interrupted, both sides usable
  4 incompatible";

/// Teaches boards new classes from a few examples: a frozen backbone on the board, a small head learned there.
///
/// Start with `graft demo`.
#[derive(Debug, Parser)]
#[command(name = "graft", version, after_help = EXIT_CODES, infer_long_args = false, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// A board: sim:NAME, serial:PORT, serial:PORT@BAUD or ssh:USER@HOST; repeat for several.
    #[arg(short = 'd', long = "device", value_name = "DEVICE", global = true)]
    pub devices: Vec<String>,
    /// One JSON object on standard output, progress as one JSON object per line on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// Results and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More detail, e.g. every file.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole story on two simulated boards, in under a minute.
    Demo(DemoArgs),
    /// Look into an ONNX model: inputs, outputs, where to cut, which operators run how. Or into a bundle.
    #[command(after_help = EXIT_CODES)]
    Inspect(InspectArgs),
    /// Turn a float or QDQ ONNX backbone into an int8 bundle for boards.
    #[command(after_help = EXIT_CODES)]
    Quantize(Box<QuantizeArgs>),
    /// Send a bundle to boards, test it there and activate it; the previous one is kept.
    #[command(after_help = EXIT_CODES)]
    Flash(FlashArgs),
    /// What a board is and holds; going back to its previous bundle.
    #[command(subcommand, after_help = EXIT_CODES)]
    Device(DeviceCommand),
    /// Give a board labelled examples.
    #[command(after_help = EXIT_CODES)]
    Collect(CollectArgs),
    /// List, forget and relabel a board's samples.
    #[command(subcommand, after_help = EXIT_CODES)]
    Samples(SamplesCommand),
    /// Learn a head on the board from its stored embeddings.
    #[command(after_help = EXIT_CODES)]
    Train(TrainArgs),
    /// Classify files on a board.
    #[command(after_help = EXIT_CODES)]
    Predict(PredictArgs),
    /// Measure accuracy: on a folder, or by leaving out sessions of the board's own samples; then also which samples to
    /// look at.
    #[command(after_help = EXIT_CODES)]
    Eval(EvalArgs),
    /// Pull sample sets and heads of boards into the host store and merge them.
    #[command(after_help = EXIT_CODES)]
    Sync(SyncArgs),
    /// Send the merged set of the host store to boards.
    #[command(after_help = EXIT_CODES)]
    Push(PushArgs),
    /// Write a board's head as a file for other programs.
    #[command(after_help = EXIT_CODES)]
    Export(ExportArgs),
    /// How fast a bundle runs, here or on boards: latency, cost of each layer, memory.
    #[command(after_help = EXIT_CODES)]
    Bench(BenchArgs),
    /// Simulated boards: list them, or run some on pseudo terminals.
    #[command(after_help = EXIT_CODES)]
    Sim(SimArgs),
}

/// `graft bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A bundle to time on this computer; without it, what is active on the devices is timed there.
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<PathBuf>,
    /// Inferences to time, after a few that warm up.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Threads that run them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
}

/// `graft demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Work in DIR (new or empty) and leave everything there; without it a temporary folder is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// How a model is read; of `inspect` and `quantize`.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// The ONNX file; external data is read from its folder only.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The model's input to feed, where it has several.
    #[arg(long, value_name = "NAME")]
    pub input: Option<String>,
    /// Shape of that input where the model leaves it open, e.g. 1,3,224,224 (a symbolic batch needs none).
    #[arg(long, value_name = "DIMS", value_delimiter = ',')]
    pub input_shape: Vec<usize>,
}

/// `graft inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The model, or a bundle.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `graft quantize`.
#[derive(Args, Clone, Debug)]
pub struct QuantizeArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Folder of unlabelled examples (images, .npy, .npz; recursive) that fix the integer ranges; 20 to 200 are good.
    #[arg(long, value_name = "DIR")]
    pub calib: PathBuf,
    /// Tensor that becomes the embedding; default: what `graft inspect` suggests.
    #[arg(long, value_name = "TENSOR")]
    pub cut: Option<String>,
    /// The bundle to write [default: the model's name with .graft, in the current folder].
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Name of the bundle as boards show it [default: the model's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How a picture is brought to the model's size: squash ignores its aspect, shortest-crop resizes the shorter side
    /// and crops the centre, letterbox pads, strokes cuts out one hand-drawn sign.
    #[arg(long, value_name = "HOW")]
    pub resize: Option<ResizeArg>,
    /// With shortest-crop: model size / shorter side, e.g. 0.875 for 224 out of 256 [default: 0.875].
    #[arg(long, value_name = "RATIO")]
    pub crop_ratio: Option<f64>,
    /// Interpolation [default: bilinear].
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<FilterArg>,
    /// Channels of the model's input.
    #[arg(long, value_name = "ORDER")]
    pub channels: Option<ChannelsArg>,
    /// What the model wants of a pixel x in 0..255:
    /// tf: (x - 127.5) / 127.5;
    /// imagenet: (x / 255 - mean) / std with mean 0.485,0.456,0.406 and std 0.229,0.224,0.225;
    /// unit: x / 255;
    /// raw: x.
    #[arg(long, value_name = "NORM", verbatim_doc_comment, conflicts_with_all = ["mean", "std"])]
    pub norm: Option<NormArg>,
    /// Own normalisation, (x / 255 - mean) / std, one value or one per channel, in the model's channel order.
    #[arg(long, value_name = "M,M,M", value_delimiter = ',', requires = "std", allow_hyphen_values = true)]
    pub mean: Vec<f64>,
    /// See --mean.
    #[arg(long, value_name = "S,S,S", value_delimiter = ',', requires = "mean")]
    pub std: Vec<f64>,
    /// Compare with your own float embedding of one input: wrong preprocessing costs points in silence.
    #[arg(long, value_name = "INPUT=EMB.npy")]
    pub expect: Option<String>,
    /// How the range of each tensor is chosen from what calibration shows.
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = RangesArg::LeastError)]
    pub ranges: RangesArg,
    /// Largest loss, mean of 1 - cosine between int8 and float embeddings, e.g. 0.001: as few layers as that needs are held
    /// in int16 or computed in float, which costs time; the bits stay the same on every CPU.
    #[arg(long, value_name = "LOSS", value_parser = loss, allow_negative_numbers = true)]
    pub max_loss: Option<f64>,
    /// Run operators that have no integer or exact form in tract's own float code, instead of refusing the model: embeddings
    /// may then differ between CPUs, and samples of two boards may not be equal byte for byte.
    #[arg(long)]
    pub allow_inexact: bool,
    /// Cross-layer equalization: worth a try where `noisiest` names a layer after a depthwise convolution.
    #[arg(long)]
    pub equalize: bool,
    /// Calibration inputs that are also run as integers and compared with float; at least 32 with --max-loss.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub verify: usize,
    /// Picks the calibration files where there are more than 200.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Where the backbone comes from, kept in the bundle.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub origin: String,
    /// Licence of the weights, kept in the bundle.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub licence: String,
}

/// `--resize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResizeArg {
    /// Both sides resized, aspect ignored.
    Squash,
    /// Shorter side resized, centre cropped.
    ShortestCrop,
    /// Longer side fits, the rest padded.
    Letterbox,
    /// One hand-drawn sign, cut out; for the glyph backbone.
    Strokes,
}

/// `--ranges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RangesArg {
    /// Least mean squared error: rare extremes are clipped.
    LeastError,
    /// One value in 10,000 lies outside on each side.
    Percentile,
    /// All that was seen.
    MinMax,
}

/// `--filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FilterArg {
    /// Triangle.
    Bilinear,
    /// Cubic.
    Bicubic,
    /// Nearest pixel.
    Nearest,
}

/// `--channels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChannelsArg {
    /// Red, green, blue.
    #[value(alias = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[value(alias = "BGR")]
    Bgr,
    /// One channel.
    #[value(alias = "gray")]
    Grey,
}

/// `--norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormArg {
    /// (x - 127.5) / 127.5
    Tf,
    /// (x / 255 - mean) / std of ImageNet
    Imagenet,
    /// x / 255
    Unit,
    /// x
    Raw,
}

/// `graft flash`.
#[derive(Args, Clone, Debug)]
pub struct FlashArgs {
    /// A file that `graft quantize` wrote.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Do not ask before the embedding space changes.
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would happen; send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Send and test the bundle, but leave the present one active.
    #[arg(long)]
    pub no_activate: bool,
}

/// `graft device ...`.
#[derive(Clone, Debug, Subcommand)]
pub enum DeviceCommand {
    /// Show bundle, samples, head and storage.
    Info,
    /// Activate the previous bundle with its samples and head.
    Rollback,
}

/// `graft collect`.
#[derive(Args, Clone, Debug)]
pub struct CollectArgs {
    /// A file or folder of images, .npy or .npz; repeat for several. Hidden files are ignored.
    #[arg(long = "from", value_name = "DIR|FILE", required = true)]
    pub from: Vec<PathBuf>,
    /// Class of all files [default: the name of the folder right under DIR]. none, unknown and _negative are no
    /// classes: what lies there shows none of them.
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// What was taken in one go, hence left out together in evaluation: each (every file by itself), folder (files of
    /// one folder together), or a name.
    #[arg(long, value_name = "NAME|each|folder", default_value = "each")]
    pub session: String,
    /// Fail if any file cannot be used.
    #[arg(long)]
    pub strict: bool,
    /// Where the backbone runs. On a slow line `host` sends a few hundred bytes per file instead of the whole input;
    /// for an exact bundle the result is the same.
    #[arg(long, value_name = "WHERE", default_value = "device", requires_if("host", "bundle"))]
    pub embed: EmbedArg,
    /// With --embed host: the bundle that is active on the board.
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: Option<PathBuf>,
}

/// `--embed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmbedArg {
    /// On the board.
    Device,
    /// On this computer.
    Host,
}

/// `graft samples ...`.
#[derive(Clone, Debug, Subcommand)]
pub enum SamplesCommand {
    /// List live samples.
    Ls {
        /// Of one class only.
        #[arg(long, value_name = "NAME")]
        class: Option<String>,
        /// Of one session only: its name, or its id.
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
    },
    /// Forget samples for good.
    Rm {
        /// Ids, or their first digits (at least 4).
        #[arg(value_name = "ID", required_unless_present_any = ["class", "session"])]
        ids: Vec<String>,
        /// All samples of a class.
        #[arg(long, value_name = "NAME")]
        class: Option<String>,
        /// All samples of a session: its name, or its id.
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
        /// Say which samples; forget nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give samples another class.
    Relabel {
        /// Ids, or their first digits (at least 4).
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// The right class; none, unknown and _negative say that the sample shows none.
        #[arg(long, value_name = "NAME")]
        class: String,
    },
}

/// `--head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HeadArg {
    /// Nearest class mean, centred.
    Ncm,
    /// Nearest class mean in Euclidean distance.
    NcmEuclidean,
    /// Nearest class mean without the least and greatest fifth of each component.
    NcmTrimmed,
    /// Ridge regression.
    Ridge,
    /// Linear discriminant analysis with one shrunk covariance for all classes.
    Lda,
    /// Softmax regression.
    Logistic,
    /// Nearest neighbours, as a baseline.
    Knn,
    /// Ridge regression on a random projection with a rectifier.
    Rp,
    /// Ridge or lda, or ncm where samples per class are uneven, by leaving out sessions.
    #[default]
    Auto,
}

/// `graft train`.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Which head.
    #[arg(long, value_name = "HEAD", default_value = "auto")]
    pub head: HeadArg,
    /// Share of known inputs that may be rejected, e.g. 0.05; whatever looks less known than all but this share of the
    /// samples is unknown. Needs 1 / RATE - 1 samples. Without it nothing is rejected.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub unknown: Option<f64>,
    /// Activate the head although the board's present one was pushed and knows more samples than the board holds, or
    /// gets 5 % more of the samples right that both know.
    #[arg(long)]
    pub force: bool,
}

/// `graft predict`.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    /// Images, .npy, .npz, folders of them, or - for paths from standard input, one per line.
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Fail if any file cannot be used.
    #[arg(long)]
    pub strict: bool,
}

/// `graft eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// Folder with one folder per class; without it, sessions of the board's own samples are left out in turn.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Which head, without DIR [default: the kind of the active head].
    #[arg(long, value_name = "HEAD", conflicts_with = "dir")]
    pub head: Option<HeadArg>,
    /// Exit with code 6 if the accuracy is lower; a fraction in 0..1.
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_accuracy: Option<f64>,
    /// Fail if any file cannot be used.
    #[arg(long)]
    pub strict: bool,
}

/// `graft sync`.
#[derive(Args, Clone, Debug)]
pub struct SyncArgs {
    /// Say what would change; write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `graft push`.
#[derive(Args, Clone, Debug)]
pub struct PushArgs {
    /// Send a head alone, trained here from the merged set; the board's samples stay as they are.
    #[arg(long)]
    pub head_only: bool,
    /// With --head-only: which head.
    #[arg(long, value_name = "HEAD", default_value = "auto", requires = "head_only")]
    pub head: HeadArg,
    /// With --head-only: a head that was pulled, by the first digits of its digest, instead of a new one.
    #[arg(long, value_name = "DIGEST", requires = "head_only", conflicts_with = "head")]
    pub digest: Option<String>,
    /// Say what would be sent; send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `graft export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// onnx runs anywhere (int8 embedding in, label and scores out); safetensors and npz hold the numbers.
    #[arg(long, value_name = "FORMAT", default_value = "onnx")]
    pub format: ExportFormat,
    /// Put this bundle's backbone before the head: pictures or arrays in; it must be the one that the head was trained on.
    #[arg(long, value_name = "BUNDLE")]
    pub backbone: Option<PathBuf>,
    /// With --backbone: int8 (quantize and dequantize operators, which runtimes fuse) or float activations.
    #[arg(long, value_name = "PRECISION", default_value = "int8", requires = "backbone")]
    pub precision: ExportPrecision,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// For ONNX Runtime and others.
    Onnx,
    /// Tensors with metadata.
    Safetensors,
    /// For numpy.
    Npz,
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportPrecision {
    /// QDQ, closest to what the board computes.
    Int8,
    /// f32; for runtimes without integer operators.
    Float,
}

/// `graft sim`.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Boards to run.
    // `devices` is what the global -d is called inside.
    #[arg(long = "devices", value_name = "N", default_value_t = 1, requires = "pty", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub n_devices: u16,
    /// Run them on pseudo terminals until Ctrl-C, as serial:/dev/pts/...; without it, list the boards that exist.
    #[arg(long)]
    pub pty: bool,
}

/// A fraction in 0..1; says so if someone types percent.
fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        Ok(x) if x > 1.0 && x <= 100.0 => Err(format!("{text} is over 1; for {text} percent type {}", x / 100.0)),
        _ => Err("a fraction in 0..1 is needed, e.g. 0.9".into()),
    }
}

/// A loss of cosine, over none and under all.
fn loss(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(loss) if loss > 0.0 && loss < 1.0 => Ok(loss),
        _ => Err("a loss is more than 0 and less than 1, e.g. 0.001".into()),
    }
}

/// A fraction that is neither none nor all.
fn rate(text: &str) -> Result<f64, String> {
    match fraction(text)? {
        rate if rate > 0.0 && rate < 1.0 => Ok(rate),
        _ => Err("a rate of false rejects is more than 0 and less than 1, e.g. 0.05".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn device_takes_one_value_and_repeats_before_or_after_the_command() {
        let cli = parse("graft predict -d sim:a photo.jpg").unwrap();
        assert_eq!(cli.global.devices, ["sim:a"]);
        assert!(matches!(cli.command, Command::Predict(args) if args.inputs == [PathBuf::from("photo.jpg")]));
        let cli = parse("graft sync -d sim:a -d sim:b,c").unwrap();
        assert_eq!(cli.global.devices, ["sim:a", "sim:b,c"]);
    }

    #[test]
    fn simulated_boards_are_counted_beside_the_global_devices() {
        let cli = parse("graft sim --devices 2 --pty").unwrap();
        assert!(matches!(cli.command, Command::Sim(args) if args.n_devices == 2 && args.pty));
        let cli = parse("graft sim --pty -d sim:a").unwrap();
        assert_eq!(cli.global.devices, ["sim:a"]);
    }

    #[test]
    fn help_lists_exit_codes_and_formulas() {
        let help = Cli::command().render_long_help().to_string();
        for text in ["3 no or ambiguous device", "130 interrupted", "6 quality gate missed", "GRAFT_DATA_DIR"] {
            assert!(help.contains(text), "{text}");
        }
        let mut command = Cli::command();
        let quantize = command.find_subcommand_mut("quantize").unwrap().render_long_help().to_string();
        for text in ["tf: (x - 127.5) / 127.5", "0.485,0.456,0.406", "unit: x / 255", "raw: x", "130 interrupted"] {
            assert!(quantize.contains(text), "{text} in {quantize}");
        }
    }

    #[test]
    fn usage_errors_are_caught() {
        for line in [
            "graft",
            "graft bake",
            "graft predict",
            "graft collect --class a",
            "graft collect --from a --embed host",
            "graft quantize m.onnx",
            "graft quantize m.onnx --calib c --norm tf --mean 0.5 --std 0.5",
            "graft quantize m.onnx --calib c --mean 0.5",
            "graft samples rm",
            "graft push --head ncm",
            "graft sim --devices 0 --pty",
            "graft eval --min-accuracy 90",
            "graft train -q -v",
            "graft train --unknown 0",
            "graft train --unknown 1",
            "graft train --unknown 5",
        ] {
            let error = parse(line).expect_err(line);
            assert!(!matches!(error.kind(), ErrorKind::DisplayVersion), "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn negative_means_and_lists_are_values() {
        let cli = parse("graft quantize m.onnx --calib c --mean -0.5,0,1 --std 1,1,1 --input-shape 1,3,8,8").unwrap();
        let Command::Quantize(args) = cli.command else { panic!("quantize") };
        assert_eq!(args.mean, [-0.5, 0.0, 1.0]);
        assert_eq!(args.model.input_shape, [1, 3, 8, 8]);
    }

    #[test]
    fn percent_is_refused_with_the_fraction_to_type() {
        assert_eq!(fraction("0.9"), Ok(0.9));
        assert!(fraction("90").unwrap_err().contains("type 0.9"));
        assert!(fraction("nan").is_err());
        assert!(fraction("-1").is_err());
    }
}
