//! reqwest: its responses are judged like any other (feature `reqwest`).

use http::{HeaderMap, StatusCode};
use reqwest::Response;

use crate::HttpHead;

impl HttpHead for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}
