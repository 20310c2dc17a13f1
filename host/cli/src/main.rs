//! The program `graft`; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    graft_cli::main()
}
