//! Development commands of the workspace: `cargo xtask COMMAND`.

mod apt;
mod bench;
mod bless;
mod build_ebpf;
mod child;
mod demo;
mod deny;
mod docs;
mod fuzz;
mod miri;
mod package;
mod protections;
mod robust;
mod soak;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of probe")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the eBPF object that probe embeds, or check the committed one
    BuildEbpf(build_ebpf::Args),
    /// Run all tests, lane by lane
    Test(test::Args),
    /// Watch a small faulty daemon fail in several ways, in under 30 seconds (needs root)
    Demo(demo::Args),
    /// Measure probe beside what people use today (needs root)
    Bench(bench::Args),
    /// Show what survives probe's own end, losses of events and faults of the host, as tables (needs root)
    Robust(robust::Args),
    /// Let daemons fail, and probe too, for long; compare what was found with what was done (needs root)
    Soak(soak::Args),
    /// Record the findings of the traces under tests/traces anew, as the expected ones
    Bless(bless::Args),
    /// Run the kernel tests on Debian's kernels, each in a virtual machine
    Vm(vm::Args),
    /// Write the pages of the documentation that are made from the program
    Docs(docs::Args),
    /// Run LLVM's fuzzer on what reads bytes of others
    Fuzz(fuzz::Args),
    /// Print what protects the host from probe and probe from others, with the test that holds it
    Protections(protections::Args),
    /// Build the Debian package, or the static program
    Package(package::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    child::catch_interrupts()?;
    match command {
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Robust(args) => robust::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Bless(args) => bless::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Protections(args) => protections::run(&args),
        Command::Package(args) => package::run(&args),
    }
}
