use br_rt::Rt;

use crate::{Failure, Secret};

/// The token in a file that others write anew from time to time.
pub(crate) async fn read_token(rt: &Rt, file: &str) -> Result<Secret, Failure> {
    let path = file.to_owned();
    let text = rt.blocking(move || std::fs::read_to_string(path)).await;
    match text {
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(error) => Err(Failure::Settings(format!(
            "cannot read the token file {file:?}: {error}"
        ))),
    }
}
