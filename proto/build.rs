//! Compiles both `.proto` files with the pure-Rust protox, so that building needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["migration.proto", "externalscaler.proto"], ["."])?;
    let mut config = tonic_prost_build::configure();
    // What the admin service answers is also what REST and `--json` print: one definition for all three.
    for message in [
        "JobSummary",
        "JobStatus",
        "Phase",
        "TaskStatus",
        "WorkerStatus",
        "HeldTask",
        "FinalReport",
        "Phases",
        "TaskCounts",
        "WorkerShare",
        "SlowTask",
        "BadRow",
        "Problem",
        "Progress",
        "CheckReply",
        "Checker",
        "CheckedPlan",
        "Finding",
    ] {
        config = config.type_attribute(
            format!("starlift.v1.{message}"),
            "#[derive(serde::Serialize, serde::Deserialize)]",
        );
    }
    config.compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=migration.proto");
    println!("cargo:rerun-if-changed=externalscaler.proto");
    Ok(())
}
