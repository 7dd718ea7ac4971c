//! The administrator's and user's tool. All of it is in [`pillarbox::cli`].

fn main() -> std::process::ExitCode {
    pillarbox::cli::main(pillarbox::cli::pillarbox::main)
}
