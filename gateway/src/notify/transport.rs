//! From a target's settings to what sends.

use std::time::Duration;

use lettre::message::Mailbox;

use super::{
    email::{Email, Server},
    failure::Failure,
    http::{self, Client},
    message::Message,
    slack::Slack,
    webhook::Webhook,
};
use crate::config::{Target, TargetKind};

/// How long one attempt may take.
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Transport {
    Webhook(Webhook),
    Slack(Slack),
    Email(Box<Email>),
}

impl Transport {
    /// # Errors
    ///
    /// One line that names the key, and what would be right.
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        match &target.kind {
            TargetKind::Webhook { url, .. } if !http::is_url(url) => {
                Err("webhook must be a URL of http or https".to_owned())
            }
            TargetKind::Webhook { url, secret_file } => Ok(Self::Webhook(Webhook {
                client: Client::new()?,
                url: url.clone(),
                secret_file: secret_file.clone(),
            })),
            TargetKind::Slack { url_file } => {
                Ok(Self::Slack(Slack { client: Client::new()?, url_file: url_file.clone() }))
            }
            TargetKind::Email { server, password_file, ca_file, from, to } => {
                let mailbox = |key: &str, text: &str| {
                    let expected = "must be an address such as brk@example.com";
                    text.parse::<Mailbox>()
                        .map_err(|_| format!("{key} is {text:?}, but {expected}"))
                };
                if to.is_empty() {
                    return Err("to must have at least one address".to_owned());
                }
                let expected =
                    "server must be smtps://user@host or smtp://user@host, with no password in it";
                Ok(Self::Email(Box::new(Email {
                    server: Server::read(server).ok_or(expected)?,
                    password_file: password_file.clone(),
                    ca_file: ca_file.clone(),
                    from: mailbox("from", from)?,
                    to: to.iter().map(|to| mailbox("to", to)).collect::<Result<_, _>>()?,
                })))
            }
        }
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        let sent = async {
            match self {
                Self::Webhook(webhook) => webhook.send(message).await,
                Self::Slack(slack) => slack.send(message).await,
                Self::Email(email) => email.send(message, WITHIN).await,
            }
        };
        let late = |_| Failure::transient(format!("it did not answer within {WITHIN:?}"));
        tokio::time::timeout(WITHIN, sent).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }
}
