//! A daemon that behaves, or misbehaves, exactly as it is told. See `probe_tests::faulty`.

fn main() -> anyhow::Result<()> {
    probe_tests::faulty::main()
}
