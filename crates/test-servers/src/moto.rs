use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::HttpRequest,
};

use crate::{process::Process, request::send};

/// The `moto` server: S3, STS, KMS, IAM and the metadata of instances.
pub struct Moto(Process);

/// Keys of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

/// A policy that allows everything, for forms.
const ALL: &str = concat!(
    "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow",
    "%22%2C%22Action%22%3A%22%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D"
);

impl Moto {
    /// Starts one that takes any credentials.
    pub fn start() -> Moto {
        Moto(Process::start("moto", &["-H", "127.0.0.1", "-p", "0"], &[]))
    }

    /// Starts one that has the bucket, one user and the role [`Moto::ROLE`], who may do everything,
    /// and then checks the signatures of all requests.
    pub fn start_strict(bucket: &str) -> (Moto, AccessKey) {
        // The bucket and what follows are six actions.
        let environment = [("INITIAL_NO_AUTH_ACTION_COUNT", "6")];
        let arguments = ["-H", "127.0.0.1", "-p", "0"];
        let moto = Moto(Process::start("moto", &arguments, &environment));
        moto.create_bucket(bucket);
        moto.iam("Action=CreateUser&UserName=user");
        moto.iam(&format!(
            "Action=PutUserPolicy&UserName=user&PolicyName=all&PolicyDocument={ALL}"
        ));
        moto.iam(&format!(
            "Action=CreateRole&RoleName=backup&AssumeRolePolicyDocument={ALL}"
        ));
        moto.iam(&format!(
            "Action=PutRolePolicy&RoleName=backup&PolicyName=all&PolicyDocument={ALL}"
        ));
        let answer = moto.iam("Action=CreateAccessKey&UserName=user");
        let key = AccessKey {
            id: between(&answer, "<AccessKeyId>", "</AccessKeyId>"),
            secret: between(&answer, "<SecretAccessKey>", "</SecretAccessKey>"),
        };
        (moto, key)
    }

    /// The role of [`Moto::start_strict`].
    pub const ROLE: &'static str = "arn:aws:iam::123456789012:role/backup";

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) {
        let request = hyper::Request::put(format!("{}/{name}", self.endpoint()));
        let (status, answer) = self.signed("s3", request.body(Vec::new().into()).unwrap());
        assert_eq!(status, 200, "{answer}");
    }

    /// Makes a key in KMS: its id.
    pub fn create_kms_key(&self) -> String {
        let request = hyper::Request::post(format!("{}/", self.endpoint()))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "TrentService.CreateKey")
            .body(b"{}".to_vec().into())
            .unwrap();
        let (status, answer) = self.signed("kms", request);
        assert_eq!(status, 200, "{answer}");
        between(&answer.replace(' ', ""), "\"KeyId\":\"", "\"")
    }

    fn iam(&self, form: &str) -> String {
        let request = hyper::Request::post(format!("{}/", self.endpoint()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("{form}&Version=2010-05-08").into())
            .unwrap();
        let (status, answer) = self.signed("iam", request);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn signed(&self, service: &str, mut request: HttpRequest) -> (u16, String) {
        let credential = AwsCredential {
            key_id: "nobody".to_owned(),
            secret_key: "nothing".to_owned(),
            token: None,
        };
        AwsAuthorizer::new(&credential, service, "us-east-1")
            .try_authorize(&mut request, None)
            .unwrap();
        send(&request)
    }
}

fn between(text: &str, start: &str, end: &str) -> String {
    let (_, after) = text.split_once(start).unwrap();
    after.split_once(end).unwrap().0.to_owned()
}
