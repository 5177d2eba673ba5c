//! Every scenario in `tests/fixtures/transcripts`, and that none of them passes by accident.

use std::{fs, panic::AssertUnwindSafe, path::Path};

use futures_util::FutureExt;

use crate::support::session::check;

#[tokio::test(start_paused = true)]
async fn every_transcript_happens_as_it_is_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transcripts");
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the transcripts are where they should be");
    let mut failed = Vec::new();
    for file in files {
        let transcript = fs::read_to_string(&file).unwrap();
        if AssertUnwindSafe(check(&transcript)).catch_unwind().await.is_err() {
            failed.push(file.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(failed.is_empty(), "these transcripts did not happen: {failed:?}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the client receives nothing")]
async fn a_transcript_that_expects_too_much_fails() {
    check("c> {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\nc< {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}").await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the server should have nothing to read")]
async fn a_transcript_that_leaves_something_out_fails() {
    check("c> {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}").await;
}
