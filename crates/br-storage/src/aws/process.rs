use async_trait::async_trait;
use br_rt::Rt;
use object_store::aws::AwsCredential;

use super::metadata::keys_in;
use crate::{
    Failure,
    call::{json, text_in},
    command::run,
    renewed::{Fresh, Giver},
};

/// A command that gives credentials: `credential_process` of a profile.
pub(super) struct Process {
    rt: Rt,
    profile: String,
    command: String,
}

impl Process {
    pub(super) fn new(rt: &Rt, profile: &str, command: &str) -> Process {
        Process {
            rt: rt.clone(),
            profile: profile.to_owned(),
            command: command.to_owned(),
        }
    }
}

#[async_trait]
impl Giver for Process {
    type Credential = AwsCredential;

    async fn ask(&self) -> Result<Fresh<AwsCredential>, Failure> {
        let failed = |why: String| {
            Failure::Settings(format!(
                "the credential_process of the profile {:?} {why}",
                self.profile
            ))
        };
        let output = run(&self.rt, &["sh", "-c", &self.command]).await;
        let answer = json(&output.map_err(failed)?);
        let answer = answer.map_err(|_| failed("does not say JSON".to_owned()))?;
        if answer.get("Version").and_then(serde_json::Value::as_u64) != Some(1) {
            return Err(failed("does not say \"Version\": 1".to_owned()));
        }
        let token = text_in(&answer, "SessionToken");
        keys_in(&answer, token).ok_or_else(|| failed("says no keys".to_owned()))
    }

    fn what(&self) -> String {
        format!("the credential_process of the profile {:?}", self.profile)
    }
}
