//! Prints the OpenAPI document, as it is to be committed.

#![expect(clippy::print_stdout, reason = "what it is for")]

fn main() {
    println!("{:#}", orchestrator_api::openapi::document());
}
