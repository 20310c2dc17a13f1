//! `graft quantize`: a bundle and a report from a model and a folder of examples.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use graft_bundle::file::NAME_BYTES_MAX;
use graft_bundle::input::{Channels, Filter};
use graft_quantize::{
    CALIBRATION_FEW, FallbackReport, ImportError, ImportOptions, InputOptions, Norm, Progress, QuantizeError,
    QuantizeOptions, RangeMethod, Report, Resize, SpecError, quantize, three_digits,
};
use serde_json::{Value, json};

use super::Done;
use super::inspect::{big, import_error, import_options};
use crate::args::{ChannelsArg, FilterArg, NormArg, QuantizeArgs, RangesArg, ResizeArg};
use crate::context::Context;
use crate::error::{CliError, chain};
use crate::files::{Skipped, io_text, quoted};
use crate::host_store::sync_dir;
use crate::interrupt;
use crate::output::{Output, Unit, amount, count, percent, plain_table};

/// Below this cosine an own embedding and the bundle's are not the same thing: int8 alone costs far less (0.997 on
/// MobileNetV2), a wrong normalisation or channel order more.
const EXPECT_COSINE_LOW: f64 = 0.98;

/// Layers held finer than int8 that are named without `-v`.
const FALLBACKS_SHOWN: usize = 6;

/// Runs `graft quantize`.
///
/// # Errors
/// A model, preprocessing or folder that cannot be used, or a bundle that cannot be written; no file is left then.
pub fn run(context: &Context, args: &QuantizeArgs) -> Result<Done, CliError> {
    let output = &context.output;
    let out = out_path(args)?;
    let options = options(args)?;
    // Whether minutes of work can be kept at their end is known before.
    can_write(&out)?;
    let quantized = {
        let _at_once = interrupt::ExitAtOnce::new("nothing was written");
        let mut progress = output.progress("reading", 1, Unit::Items);
        let made = quantize(&args.model.model, &options, &mut |step| match step {
            Progress::Imported => progress.step("decoding"),
            Progress::Decoded { n } => {
                progress.step("calibrating");
                progress.at_of(0, n as u64);
            }
            Progress::Calibrated { n, of } => progress.at_of(n as u64, of as u64),
            Progress::Searched { n } => {
                progress.step("sets of layers tried");
                progress.so_far(n as u64);
            }
            Progress::Quantized => progress.step("verifying"),
            Progress::Verified => {}
        });
        made.map_err(|e| quantize_error(&e, args))?
    };
    let report = &quantized.report;
    let report_path = out.with_extension("report.json");
    let object = object(args, &out, &report_path, report)?;
    // The report first: a bundle that is there is complete.
    write_whole(&report_path, object.to_string())?;
    write_whole(&out, &quantized.bundle_bytes)?;
    print(output, args, &out, report);
    Ok(Done::ok(object))
}

fn out_path(args: &QuantizeArgs) -> Result<PathBuf, CliError> {
    let model = &args.model.model;
    let out = match &args.output {
        Some(out) => out.clone(),
        None => {
            let stem = model.file_stem().filter(|stem| *stem != "model").or_else(|| model.parent()?.file_name());
            PathBuf::from(stem.unwrap_or("model".as_ref())).with_extension("graft")
        }
    };
    let same =
        |a: &Path, b: &Path| a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b));
    if same(&out, model) {
        return Err(CliError::usage(format!("{} is the model itself; another name is needed", out.display()))
            .with_help(format!("graft quantize {} --calib DIR -o OUT.graft", quoted(model))));
    }
    if out.is_dir() {
        return Err(CliError::usage(format!("{} is a folder; a file name is needed", out.display()))
            .with_help(format!("graft quantize {} --calib DIR -o {}/NAME.graft", quoted(model), quoted(&out))));
    }
    if fs::metadata(&out).is_ok_and(|found| !found.is_file()) {
        // A device or a pipe, which would be replaced.
        return Err(CliError::usage(format!("{} is no regular file; another name is needed", out.display()))
            .with_help(format!("graft quantize {} --calib DIR -o OUT.graft", quoted(model))));
    }
    // Of a link its target is written.
    Ok(if out.is_symlink() { fs::canonicalize(&out).unwrap_or(out) } else { out })
}

fn options(args: &QuantizeArgs) -> Result<QuantizeOptions, CliError> {
    let expect = match &args.expect {
        None => None,
        Some(pair) => match pair.rsplit_once('=') {
            Some((input, embedding)) if !input.is_empty() && !embedding.is_empty() => {
                Some((input.into(), embedding.into()))
            }
            _ => {
                return Err(CliError::usage(format!("--expect {pair:?}; INPUT=EMB.npy is needed"))
                    .with_help("graft quantize MODEL.onnx --calib DIR --expect photo.jpg=embedding.npy"));
            }
        },
    };
    if let Some(name) = args.name.as_ref().filter(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        let n = name.len();
        return Err(CliError::usage(format!("--name has {n} bytes; 1 to {NAME_BYTES_MAX} are allowed"))
            .with_help("graft quantize MODEL.onnx --calib DIR --name NAME"));
    }
    let norm = match args.norm {
        Some(NormArg::Tf) => Some(Norm::Tf),
        Some(NormArg::Imagenet) => Some(Norm::Imagenet),
        Some(NormArg::Unit) => Some(Norm::Unit),
        Some(NormArg::Raw) => Some(Norm::Raw),
        None if args.mean.is_empty() => None,
        None => Some(Norm::MeanStd { scale: 1.0 / 255.0, mean: args.mean.clone(), std: args.std.clone() }),
    };
    let input = InputOptions {
        resize: args.resize.map(|resize| match resize {
            ResizeArg::Squash => Resize::Squash,
            ResizeArg::ShortestCrop => Resize::ShortestCrop,
            ResizeArg::Letterbox => Resize::Letterbox,
            ResizeArg::Strokes => Resize::Strokes,
        }),
        crop_ratio: args.crop_ratio,
        filter: args.filter.map(|filter| match filter {
            FilterArg::Bilinear => Filter::Bilinear,
            FilterArg::Bicubic => Filter::Bicubic,
            FilterArg::Nearest => Filter::Nearest,
        }),
        channels: args.channels.map(|channels| match channels {
            ChannelsArg::Rgb => Channels::Rgb,
            ChannelsArg::Bgr => Channels::Bgr,
            ChannelsArg::Grey => Channels::Grey,
        }),
        norm,
        ..InputOptions::default()
    };
    Ok(QuantizeOptions {
        import: ImportOptions { allow_inexact: args.allow_inexact, ..import_options(&args.model) },
        cut: args.cut.clone(),
        ranges: match args.ranges {
            RangesArg::LeastError => RangeMethod::LeastError,
            RangesArg::Percentile => RangeMethod::Percentile,
            RangesArg::MinMax => RangeMethod::MinMax,
        },
        max_loss: args.max_loss,
        equalize: args.equalize,
        n_verify: args.verify,
        seed: args.seed,
        input,
        expect,
        name: args.name.clone(),
        origin: args.origin.clone(),
        licence: args.licence.clone(),
        ..QuantizeOptions::new(&args.calib)
    })
}

fn quantize_error(error: &QuantizeError, args: &QuantizeArgs) -> CliError {
    let model = quoted(&args.model.model);
    let calib = quoted(&args.calib);
    let help = match error {
        QuantizeError::Import(ImportError::Refused { tract_can: true, .. }) => {
            "the same command with --allow-inexact, if embeddings may differ between CPUs".into()
        }
        QuantizeError::Import(error) => return import_error(error, &args.model),
        QuantizeError::Input(SpecError::NormMissing) => {
            format!("state it, one of tf, imagenet, unit, raw: graft quantize {model} --calib {calib} --norm imagenet")
        }
        QuantizeError::Input(SpecError::Value { .. }) => "graft quantize --help".into(),
        QuantizeError::Input(_) => format!("graft inspect {model}"),
        QuantizeError::Folder { .. } | QuantizeError::NoCalibration { .. } => {
            format!("look for images, .npy or .npz: find {calib} -type f")
        }
        QuantizeError::Expect { .. } => "graft quantize MODEL.onnx --calib DIR --expect photo.jpg=embedding.npy".into(),
        QuantizeError::Loss { least, .. } => {
            format!("the same command with --max-loss {}", round_up(*least))
        }
        _ => format!("graft inspect {model}"),
    };
    let error_text = CliError::failed(chain(error)).with_help(help);
    match error {
        QuantizeError::Input(SpecError::Value { .. } | SpecError::NormMissing | SpecError::NotAPicture { .. }) => {
            CliError { exit: crate::error::Exit::Usage, ..error_text }
        }
        _ => error_text,
    }
}

fn print(output: &Output, args: &QuantizeArgs, out: &Path, report: &Report) {
    if let Some(echo) = &report.input {
        output.line(format!("input      {echo}"));
    }
    let pooled = if report.pooled { ", with a mean over height and width" } else { "" };
    output.line(format!(
        "cut        {} ({} components, {} multiply-adds{pooled})",
        report.cut,
        report.embedding_len,
        big(report.macs)
    ));
    output.line(format!("calibrated on {} of {}", report.n_calibration, count(report.n_seen as u64, "file")));
    if let (Some(mean), Some(least)) = (report.cosine_mean, report.cosine_min) {
        let worst = report.worst_file.as_ref().map_or(String::new(), |file| format!(" ({})", file.display()));
        output.line(format!(
            "cosine     mean {mean:.4}, worst {least:.4}{worst}, int8 against float on {}",
            count(report.n_verified as u64, "file")
        ));
    }
    print_fallbacks(output, report);
    print_inexact(output, report);
    print_layers(output, report);
    if let Some(expect) = &report.expect {
        output.line(format!(
            "expected   cosine {:.4} with the bundle, {:.4} with the float model, on {}",
            expect.cosine_bundle,
            expect.cosine_float,
            expect.input.display()
        ));
        if expect.cosine_float < EXPECT_COSINE_LOW {
            output.warn(format!(
                "your embedding and the model's differ (cosine {:.4}): preprocessing or cut is not yours; compare --norm, \
                 --resize, --channels and --cut",
                expect.cosine_float
            ));
        }
    }
    let timings = &report.timings;
    let searching = match report.max_loss {
        Some(_) => format!("{:.1} s searching, ", timings.search_ms / 1e3),
        None => String::new(),
    };
    output.line(format!(
        "took       {:.1} s calibrating and quantizing, {searching}{:.1} s verifying",
        (timings.import_ms + timings.decode_ms + timings.calibrate_ms + timings.quantize_ms) / 1e3,
        timings.verify_ms / 1e3
    ));
    output.line(format!("wrote      {} ({})", out.display(), amount(report.bundle_bytes as u64, Unit::Bytes)));
    if report.clip_rate > 0.001 {
        output.warn(format!("{} of embedding components are clipped", percent(report.clip_rate)));
    }
    let few = report.n_calibration < CALIBRATION_FEW;
    for warning in &report.warnings {
        output.warn(warning);
    }
    if few && !report.warnings.iter().any(|w| w.contains("calibration")) {
        output.warn(format!(
            "only {} to calibrate on; at least {CALIBRATION_FEW} are good",
            count(report.n_calibration as u64, "file")
        ));
    }
    skipped(report).report(output);
    output.hint(format!("graft flash {} -d {}", quoted(out), "sim:first"));
    output.detail(format!("model {}", args.model.model.display()));
}

/// What `--max-loss` led to.
fn print_fallbacks(output: &Output, report: &Report) {
    let (Some(max_loss), Some(loss_int8), Some(cosine)) = (report.max_loss, report.loss_int8, report.cosine_mean)
    else {
        return;
    };
    let all_int8 = if report.fallbacks.is_empty() {
        ", with every layer in int8".to_owned()
    } else {
        format!("; {} with every layer in int8", three_digits(loss_int8))
    };
    output.line(format!("loss       {} of {max_loss} allowed{all_int8}", three_digits(1.0 - cosine)));
    // What is worth most first; all of it is needed.
    let mut fallbacks: Vec<_> = report.fallbacks.iter().collect();
    let worth = |fallback: &FallbackReport| fallback.loss_without.unwrap_or(f64::INFINITY);
    fallbacks.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    let n_shown = if output.verbose { fallbacks.len() } else { FALLBACKS_SHOWN };
    for fallback in fallbacks.iter().take(n_shown) {
        let (first, others) = match &fallback.layers[..] {
            [] => ("?", String::new()),
            [first] => (first.as_str(), String::new()),
            [first, others @ ..] => (first.as_str(), format!(" and {} more", others.len())),
        };
        let what = if fallback.precision == "int16" { "output of " } else { "" };
        let without =
            fallback.loss_without.map_or(String::new(), |loss| format!(": {} without it", three_digits(loss)));
        output.line(format!("{:<10} {what}{first}{others}{without}", fallback.precision));
    }
    if fallbacks.len() > n_shown {
        output.line(format!("           and {} more: -v lists them", fallbacks.len() - n_shown));
    }
    if let Some(loss_int16) = report.loss_int16 {
        output.line(format!("int16      alone reaches {} at best", three_digits(loss_int16)));
    }
    if let Some(slowdown) = report.slowdown {
        output.line(format!("time       {slowdown:.2} times that of int8, on this computer"));
    }
}

/// What tract's own float code runs.
fn print_inexact(output: &Output, report: &Report) {
    let n_shown = if output.verbose { report.inexact.len() } else { FALLBACKS_SHOWN };
    for piece in report.inexact.iter().take(n_shown) {
        let mut operators: Vec<&str> = piece.operators.iter().map(String::as_str).collect();
        operators.sort_unstable();
        operators.dedup();
        let nodes = count(piece.nodes.len() as u64, "node");
        output.line(format!("tract      {} ({nodes}: {})", piece.layer, operators.join(", ")));
    }
    if report.inexact.len() > n_shown {
        output.line(format!("           and {} more: -v lists them", report.inexact.len() - n_shown));
    }
}

/// The noisiest layer, or all of them, noisiest first.
fn print_layers(output: &Output, report: &Report) {
    let mut layers: Vec<_> = report.layers.iter().filter_map(|layer| Some((layer.snr_db?, layer))).collect();
    layers.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((snr_db, layer)) = layers.first() {
        output.line(format!("noisiest   {} {}: {snr_db:.1} dB signal to noise", layer.op, layer.name));
    }
    if output.verbose && !layers.is_empty() {
        let mut table = plain_table(&["dB", "held in", "multiply-adds", "op", "layer"], &[0, 2]);
        for (snr_db, layer) in layers {
            let cells =
                [format!("{snr_db:.1}"), layer.precision.into(), big(layer.macs), layer.op.into(), layer.name.clone()];
            table.add_row(cells);
        }
        output.table(&table);
    }
}

/// A loss that can be asked for: two digits, not under what was reached.
fn round_up(loss: f64) -> f64 {
    let unit = 10f64.powi(loss.max(1e-9).log10().floor() as i32 - 1);
    let text = format!("{:.9}", (loss / unit).ceil() * unit);
    text.parse().unwrap_or(loss)
}

fn skipped(report: &Report) -> Skipped {
    let mut skipped = Skipped::default();
    for file in &report.skipped {
        skipped.add(&file.path, file.reason.clone());
    }
    skipped
}

/// The object of `--json`, which is also the report's file.
fn object(args: &QuantizeArgs, out: &Path, report_path: &Path, report: &Report) -> Result<Value, CliError> {
    let mut object = json!({
        "schema": "graft.quantize/1", "model": args.model.model.to_string_lossy(), "bundle": out.to_string_lossy(),
        "report": report_path.to_string_lossy(),
    });
    let report = serde_json::to_value(report).map_err(|e| CliError::failed(chain(&e)))?;
    if let (Value::Object(all), Value::Object(report)) = (&mut object, report) {
        all.extend(report);
    }
    Ok(object)
}

/// Where a file is written before it is complete.
fn part_of(path: &Path) -> PathBuf {
    path.with_extension(format!("part-{}", std::process::id()))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{} cannot be written: {}", path.display(), io_text(error)))
        .with_help("write elsewhere: graft quantize MODEL.onnx --calib DIR -o OUT.graft")
}

/// An error if a file cannot be written there; leaves nothing.
fn can_write(path: &Path) -> Result<(), CliError> {
    let part = part_of(path);
    File::create(&part).and_then(|_| fs::remove_file(&part)).map_err(|e| unwritable(path, &e))
}

/// Writes a file that is either complete or not there.
fn write_whole(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), CliError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = part_of(path);
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sync_dir(dir)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&part);
        unwritable(path, &e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::error::Exit;
    use crate::files::tests::TestDir;
    use clap::Parser;
    use graft_quantize::Refused;

    fn args(line: &str) -> QuantizeArgs {
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Quantize(args) => *args,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn options_become_preprocessing() {
        let options = options(&args(
            "graft quantize m.onnx --calib c --resize shortest-crop --crop-ratio 0.9 --filter bicubic --channels BGR \
             --mean 0.5 --std 0.25 --expect a=b.jpg=e.npy --verify 3 --ranges min-max --equalize",
        ))
        .unwrap();
        assert_eq!(options.input.resize, Some(Resize::ShortestCrop));
        assert_eq!(options.input.crop_ratio, Some(0.9));
        assert_eq!(options.input.channels, Some(Channels::Bgr));
        let norm = Norm::MeanStd { scale: 1.0 / 255.0, mean: vec![0.5], std: vec![0.25] };
        assert_eq!(options.input.norm, Some(norm));
        assert_eq!(options.expect, Some(("a=b.jpg".into(), "e.npy".into())));
        assert_eq!((options.n_verify, options.ranges, options.equalize), (3, RangeMethod::MinMax, true));
        assert_eq!(super::options(&args("graft quantize m.onnx --calib c --expect x")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_bundle_is_named_after_the_model_or_its_folder() {
        assert_eq!(out_path(&args("graft quantize a/net.onnx --calib c")).unwrap(), Path::new("net.graft"));
        assert_eq!(out_path(&args("graft quantize a/model.onnx --calib c")).unwrap(), Path::new("a.graft"));
        assert_eq!(out_path(&args("graft quantize model.onnx --calib c")).unwrap(), Path::new("model.graft"));
        let error = out_path(&args("graft quantize m.onnx --calib c -o m.onnx")).unwrap_err();
        assert!(error.what.contains("is the model itself"), "{error}");
    }

    #[test]
    fn a_missing_norm_is_asked_for_with_the_command_to_type() {
        let error = quantize_error(&SpecError::NormMissing.into(), &args("graft quantize m.onnx --calib c"));
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.help.ends_with("graft quantize m.onnx --calib c --norm imagenet"), "{error}");
    }

    #[test]
    fn a_loss_that_cannot_be_kept_is_answered_with_one_that_can() {
        let error = QuantizeError::Loss { budget: 1e-6, least: 0.000_123_4, n_inputs: 32, n_stated_scales: 0 };
        let error = quantize_error(&error, &args("graft quantize m.onnx --calib c --max-loss 0.000001"));
        let text = "the loss on 32 inputs is still 0.000123; at most 0.000001 is asked for";
        assert!(error.what.ends_with(text), "{error}");
        assert_eq!(error.help, "the same command with --max-loss 0.00013");
        assert_eq!([0.0012, 0.00121, 0.099_01, 0.5].map(round_up), [0.0012, 0.0013, 0.1, 0.5]);
        assert!(Cli::try_parse_from("graft quantize m --calib c --max-loss 0".split(' ')).is_err());
    }

    #[test]
    fn operators_that_tract_can_run_are_offered_to_it() {
        let refused = |tract_can| {
            let node = Refused { node: "n".into(), op: "Softmax".into(), reason: "the reason".into() };
            let error = ImportError::Refused { refused: vec![node], tract_can };
            quantize_error(&error.into(), &args("graft quantize m.onnx --calib c"))
        };
        let what = "1 of the nodes before the cut cannot be quantized: Softmax `n` (the reason)";
        assert_eq!([refused(true).what, refused(false).what], [what, what]);
        assert_eq!(refused(true).help, "the same command with --allow-inexact, if embeddings may differ between CPUs");
        assert_eq!(refused(false).help, "see every node, and cuts before them: graft inspect m.onnx");
        assert!(!options(&args("graft quantize m.onnx --calib c")).unwrap().import.allow_inexact);
        assert!(options(&args("graft quantize m.onnx --calib c --allow-inexact")).unwrap().import.allow_inexact);
    }

    #[test]
    fn files_are_written_whole_or_not_at_all() {
        let dir = TestDir::new("whole");
        let path = dir.0.join("x.graft");
        write_whole(&path, b"12").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"12");
        can_write(&path).unwrap();
        let nowhere = dir.0.join("none/x.graft");
        for error in [write_whole(&nowhere, b"12").unwrap_err(), can_write(&nowhere).unwrap_err()] {
            assert!(error.what.ends_with("none/x.graft cannot be written: no such file or folder"), "{error}");
        }
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    }
}
