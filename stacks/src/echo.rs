//! An `Echo` server whose behaviour a test switches while it runs.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, client::GrpcService, transport::Server};
use tower::BoxError;

use crate::proto::{
    EchoReply, EchoRequest,
    bystander_server::{Bystander, BystanderServer},
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};

/// What the server does with the calls that come from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends back what it got.
    #[default]
    Ok,
    /// Answers with this status, before any message.
    Fail(Code),
    /// Sends back the first message and fails with this status then; a call
    /// with one reply only fails instead of it.
    FailMidStream(Code),
    /// Sends back the first message of a stream and then nothing; a call with
    /// one reply only gets none.
    Hang,
}

/// An `Echo` server. Clones are the same server.
#[derive(Clone, Debug, Default)]
pub struct Switchable(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    behaviour: Mutex<Behaviour>,
    hits: AtomicU64,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

impl Switchable {
    /// A server that sends back what it gets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what it does with the calls that come from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.0.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// How many calls have reached a handler.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// The service, for a `tonic::transport::Server` of your own.
    pub fn service(&self) -> EchoServer<Self> {
        EchoServer::new(self.clone())
    }

    /// A second service for the same server. It is always well, and its calls
    /// are not counted.
    pub fn bystander(&self) -> BystanderServer<Self> {
        BystanderServer::new(self.clone())
    }

    /// Serves on a port of its own, until the task is aborted. Gives the
    /// address as a URL.
    ///
    /// # Errors
    ///
    /// If there is no port to be had.
    pub async fn serve(&self) -> std::io::Result<(String, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Server::builder().add_service(self.service());
        let task = tokio::spawn(async move {
            // A server that fails shows as calls that do.
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok((url, task))
    }

    /// Counts a call, and says what to do with it.
    fn hit(&self) -> Behaviour {
        self.0.hits.fetch_add(1, Ordering::SeqCst);
        *self.0.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one reply of a call.
    async fn reply(behaviour: Behaviour, text: String) -> Result<Response<EchoReply>, Status> {
        match behaviour {
            Behaviour::Ok => Ok(Response::new(EchoReply { text })),
            Behaviour::Fail(code) | Behaviour::FailMidStream(code) => Err(failure(code)),
            Behaviour::Hang => pending().await,
        }
    }

    /// The replies of a stream.
    fn replies(
        behaviour: Behaviour,
        texts: impl Stream<Item = Result<String, Status>> + Send + 'static,
    ) -> Result<Response<Replies>, Status> {
        let replies = texts.map(|text| text.map(|text| EchoReply { text }));
        let replies: Replies = match behaviour {
            Behaviour::Ok => Box::pin(replies),
            Behaviour::Fail(code) => return Err(failure(code)),
            Behaviour::FailMidStream(code) => {
                Box::pin(replies.take(1).chain(stream::iter([Err(failure(code))])))
            }
            Behaviour::Hang => Box::pin(replies.take(1).chain(stream::pending())),
        };
        Ok(Response::new(replies))
    }
}

fn failure(code: Code) -> Status {
    Status::new(code, "told to fail")
}

#[tonic::async_trait]
impl Echo for Switchable {
    type ServerStreamStream = Replies;
    type BidiStream = Replies;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        Self::reply(self.hit(), request.into_inner().text).await
    }

    async fn server_stream(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Replies>, Status> {
        let EchoRequest { text, count } = request.into_inner();
        let texts = (0..count).map(move |_| Ok(text.clone()));
        Self::replies(self.hit(), stream::iter(texts))
    }

    /// Replies with all texts, joined by blanks.
    async fn client_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let behaviour = self.hit();
        if let Behaviour::Fail(code) = behaviour {
            return Err(failure(code));
        }
        let mut texts = Vec::new();
        let mut requests = request.into_inner();
        while let Some(request) = requests.message().await? {
            texts.push(request.text);
        }
        Self::reply(behaviour, texts.join(" ")).await
    }

    async fn bidi(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let texts = request.into_inner().map(|request| request.map(|request| request.text));
        Self::replies(self.hit(), texts)
    }
}

#[tonic::async_trait]
impl Bystander for Switchable {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        Self::reply(Behaviour::Ok, request.into_inner().text).await
    }
}

/// One of the four kinds of gRPC calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message there, one back.
    Unary,
    /// One message there, three back.
    ServerStream,
    /// Three messages there, one back.
    ClientStream,
    /// Three messages there, three back.
    Bidi,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Unary, Self::ServerStream, Self::ClientStream, Self::Bidi];

    /// Makes a call and reads it to its end; the texts that came back.
    ///
    /// # Errors
    ///
    /// The status of a call that fails, at once or in the middle.
    pub async fn call<S>(self, client: &mut EchoClient<S>) -> Result<Vec<String>, Status>
    where
        S: GrpcService<tonic::body::Body>,
        S::Error: Into<BoxError>,
        S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
        <S::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
    {
        let three = || stream::iter(["a", "b", "c"].map(EchoRequest::new));
        let replies = match self {
            Self::Unary => {
                let reply = client.unary(EchoRequest::new("a")).await?;
                return Ok(vec![reply.into_inner().text]);
            }
            Self::ClientStream => {
                let reply = client.client_stream(three()).await?;
                return Ok(vec![reply.into_inner().text]);
            }
            Self::ServerStream => {
                client.server_stream(EchoRequest { text: "a".to_owned(), count: 3 }).await?
            }
            Self::Bidi => client.bidi(three()).await?,
        };
        let mut replies = replies.into_inner();
        let mut texts = Vec::new();
        while let Some(reply) = replies.message().await? {
            texts.push(reply.text);
        }
        Ok(texts)
    }
}
