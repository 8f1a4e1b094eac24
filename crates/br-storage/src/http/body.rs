use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use br_rt::Rt;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpResponseBody};

use super::{
    gate::{Pass, Verdict},
    traffic,
};

/// A body that brings nothing for so long has stalled; the rest is read over a new connection.
const STALL: Duration = Duration::from_secs(10);

type Timer = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The body of an answer: counted, and given up when it stalls.
pub(super) struct Watched {
    inner: HttpResponseBody,
    pass: Option<Pass>,
    rt: Rt,
    timer: Option<Timer>,
}

#[derive(Debug, thiserror::Error)]
#[error("the answer brought nothing for {} s", STALL.as_secs())]
struct Stalled;

impl Watched {
    pub(super) fn new(inner: HttpResponseBody, pass: Pass, rt: Rt) -> Watched {
        Watched {
            inner,
            pass: Some(pass),
            rt,
            timer: None,
        }
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            let rt = self.rt.clone();
            Box::pin(async move { rt.sleep(STALL).await })
        });
        timer.as_mut().poll(cx)
    }

    /// The place among the requests under way is another's from now on, at the latest before the
    /// rest is asked for.
    fn ended(&mut self, verdict: Verdict) {
        if let Some(mut pass) = self.pass.take() {
            pass.verdict(verdict);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.timer = None;
                match &frame {
                    Some(Ok(frame)) => {
                        let size = frame.data_ref().map_or(0, Bytes::len);
                        traffic::received(size as u64);
                    }
                    Some(Err(_)) => {
                        traffic::broken();
                        this.ended(Verdict::Unknown);
                    }
                    None => this.ended(Verdict::Unknown),
                }
                Poll::Ready(frame)
            }
            Poll::Pending if this.poll_stall(cx).is_ready() => {
                this.timer = None;
                traffic::broken();
                this.ended(Verdict::Slower);
                let error = HttpError::new(HttpErrorKind::Timeout, Stalled);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
