//! A message for Slack, and for whatever takes the same: text and blocks.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Uri, header};
use serde_json::{Value, json};

use super::{failure::Failure, http::Client, message::Message, secret};

/// The longest text of a block.
const LONGEST: usize = 2_900;

#[derive(Debug)]
pub(super) struct Slack {
    pub(super) client: Client,
    pub(super) url_file: PathBuf,
}

impl Slack {
    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        // Whoever has the URL may post, so it is in no message.
        let url = secret::read(&self.url_file, "url_file").await?;
        let url: Uri =
            url.parse().ok().filter(super::http::is_url).ok_or_else(|| {
                Failure::permanent("url_file must hold one URL, of http or https")
            })?;
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body(message).to_string()))
            .map_err(|_| Failure::permanent("url_file must hold one URL, of http or https"))?;
        self.client.post(request).await
    }
}

/// The blocks are plain text, in which nothing is markup; the text beside them,
/// which notifications show, knows markup and has to be escaped.
fn body(message: &Message) -> Value {
    let plain = |text: &str| {
        let text: String = text.chars().take(LONGEST).collect();
        json!({ "type": "plain_text", "text": text, "emoji": false })
    };
    let mut blocks = vec![json!({ "type": "section", "text": plain(&message.title()) })];
    let lines = message.lines().join("\n");
    if !lines.is_empty() {
        blocks.push(json!({ "type": "section", "text": plain(&lines) }));
    }
    json!({ "text": escape(&message.title()), "blocks": blocks })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_called_by_a_name_or_a_reason() {
        assert_eq!(escape("<!channel> & <@U1>"), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
    }
}
