//! Compiles the `.proto` files, without protoc.

use std::{env, fs, path::Path};

use protox::prost::Message as _;

/// Messages with keys or passwords in them; `src/redacted.rs` writes their `Debug`.
const SECRET: [&str; 9] = [
    "backup.CipherInfo",
    "backup.S3",
    "backup.GCS",
    "backup.AzureBlobStorage",
    "backup.AzureCustomerKey",
    "backup.CloudDynamic",
    "encryptionpb.AzureKms",
    "encryptionpb.GcpKms",
    "encryptionpb.AwsKms",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = fs::read_dir("proto")?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    let mut descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // A server answers UNIMPLEMENTED to what it does not serve.
        .generate_default_stubs(true)
        .skip_debug(SECRET)
        .compile_fds(descriptors.clone())?;

    // Comments and line numbers are of no use at run time.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    Ok(())
}
