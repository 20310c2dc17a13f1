//! `graft sim`: simulated boards on pseudo terminals, or a list of those that exist.

use serde_json::json;

use super::Done;
use crate::args::SimArgs;
use crate::context::Context;
use crate::devices::known_devices;
use crate::error::CliError;

/// Runs `graft sim`.
///
/// # Errors
/// Boards that cannot be started.
pub fn run(context: &Context, args: &SimArgs) -> Result<Done, CliError> {
    if args.pty { on_terminals(context, args.n_devices) } else { list(context) }
}

fn list(context: &Context) -> Result<Done, CliError> {
    // No folder of serial ports: simulated boards only.
    let boards = known_devices(&context.data_dir, std::path::Path::new(""));
    for board in &boards {
        context.output.line(board);
    }
    if boards.is_empty() {
        context.output.note("no simulated board yet; naming one makes it: graft device info -d sim:first");
    }
    Ok(Done::ok(json!({"schema": "graft.sim/1", "pty": false,
        "devices": boards.iter().map(|b| json!({"device": b})).collect::<Vec<_>>()})))
}

#[cfg(unix)]
fn on_terminals(context: &Context, n: u16) -> Result<Done, CliError> {
    use crate::error::chain;
    use crate::interrupt;
    use graft_client::sim::{PtyBoards, SimError};
    use std::time::Duration;

    let failed = |e: &SimError| CliError::failed(chain(e)).with_help("see who runs it: graft sim");
    let names: Vec<String> = (1..=n).map(|i| format!("pty-{i}")).collect();
    let boards = PtyBoards::start(&context.data_dir, &names).map_err(|e| failed(&e))?;
    let output = &context.output;
    for board in boards.boards() {
        output.line(format!("serial:{}  {}", board.path, board.name));
    }
    // Printed at once: whoever reads needs the addresses while the boards run.
    output.object(&json!({"schema": "graft.sim/1", "pty": true, "devices": boards.boards().iter()
        .map(|b| json!({"device": format!("serial:{}", b.path), "name": b.name})).collect::<Vec<_>>()}));
    output.note("running until Ctrl-C; in another terminal: graft device info -d one of these");
    while !interrupt::stopped() && boards.ended().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    boards.stop().map_err(|e| failed(&e))?;
    if !interrupt::stopped() {
        return Err(CliError::failed("a simulated board ended by itself").with_help("graft sim --pty"));
    }
    // Ctrl-C is how this command is meant to end.
    output.note(format!("boards stopped; their state is kept in {}", context.data_dir.join("sim").display()));
    Ok(Done::ok(serde_json::Value::Null))
}

#[cfg(not(unix))]
fn on_terminals(_context: &Context, _n: u16) -> Result<Done, CliError> {
    Err(CliError::failed("this system has no pseudo terminals")
        .with_help("sim:NAME works in every command, e.g. graft device info -d sim:first"))
}
