//! A message as an e-mail.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::Uri;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use percent_encoding::percent_decode_str;

use super::{failure::Failure, message::Message, secret};

#[derive(Debug)]
pub(super) struct Email {
    pub(super) server: Server,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
}

/// Where mail is handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// TLS from the first byte, and not by STARTTLS.
    is_wrapped: bool,
    user: Option<String>,
    host: String,
    port: u16,
}

impl Server {
    pub(super) fn read(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let (is_wrapped, port) = match url.scheme_str()? {
            "smtps" => (true, 465),
            "smtp" => (false, 587),
            _ => return None,
        };
        let authority = url.authority()?.as_str();
        let user = match authority.rsplit_once('@') {
            None => None,
            // A password belongs in a file.
            Some((user, _)) if user.contains(':') => return None,
            Some((user, _)) => Some(percent_decode_str(user).decode_utf8().ok()?.into_owned()),
        };
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || !matches!(url.path(), "" | "/") || url.query().is_some() {
            return None;
        }
        Some(Self { is_wrapped, user, host: host.to_owned(), port: url.port_u16().unwrap_or(port) })
    }

    /// Whether what is sent there does not leave the machine.
    fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl Email {
    pub(super) async fn send(&self, message: &Message, within: Duration) -> Result<(), Failure> {
        let mail = self.write(message)?;
        let server = &self.server;
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.clone())
                .port(server.port)
                .tls(self.tls().await?)
                .timeout(Some(within));
        if let (Some(user), Some(file)) = (&server.user, &self.password_file) {
            let password = secret::read(file, "password_file").await?;
            transport = transport.credentials(Credentials::new(user.clone(), password));
        }
        match transport.build().send(mail).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(Failure::permanent(error.to_string())),
            Err(error) => Err(Failure::transient(error.to_string())),
        }
    }

    async fn tls(&self) -> Result<Tls, Failure> {
        let server = &self.server;
        let mut tls = TlsParameters::builder(server.host.clone());
        if let Some(file) = &self.ca_file {
            let pem = secret::read(file, "ca_file").await?;
            let certificates = Certificate::from_pem(pem.as_bytes())
                .map_err(|error| Failure::transient(format!("ca_file: {error}")))?;
            tls = tls.add_root_certificate(certificates);
        }
        let tls = tls.build().map_err(|error| Failure::permanent(error.to_string()))?;
        Ok(match server.is_wrapped {
            true => Tls::Wrapper(tls),
            false if self.ca_file.is_none() && server.is_here() => Tls::Opportunistic(tls),
            false => Tls::Required(tls),
        })
    }

    fn write(&self, message: &Message) -> Result<Mail, Failure> {
        // By which a copy is known.
        let id = format!("<{}@{}>", message.id(), self.from.email.domain());
        let mut mail = Mail::builder()
            .from(self.from.clone())
            .subject(message.title())
            .message_id(Some(id))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        let text = format!("{}.\n\n{}\n", message.title(), message.lines().join("\n"));
        mail.body(text).map_err(|error| Failure::permanent(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_without_a_password() {
        let server = Server::read("smtps://alice%40example.com@mail.example").unwrap();
        assert_eq!(server.user.as_deref(), Some("alice@example.com"));
        assert_eq!((server.host.as_str(), server.port), ("mail.example", 465));
        assert_eq!(Server::read("smtp://mail.example").unwrap().port, 587);
        assert_eq!(Server::read("smtp://[::1]:25").unwrap().host, "::1");
        for wrong in ["smtp://a:secret@b", "http://b", "mail.example", "smtp://", "smtp://b/x?y"] {
            assert_eq!(Server::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let is_here = |server| Server::read(server).unwrap().is_here();
        assert!(
            is_here("smtp://localhost:25")
                && is_here("smtp://127.0.0.1")
                && is_here("smtp://[::1]")
        );
        assert!(!is_here("smtp://localhost.example") && !is_here("smtp://10.0.0.1"));
    }
}
