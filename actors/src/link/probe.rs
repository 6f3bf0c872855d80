//! For the tests of handlers: an answer path whose answers the test receives.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use crate::link::AnswerPath;
use crate::link::egress::EgressCommand;
use crate::link::payload::Payload;
use crate::time::Moment;

/// Makes an answer path that ends at the receiver. The path may be used until `expires`.
pub(crate) async fn answer_path<P: Payload>(
    expires: Moment,
) -> (AnswerPath<P>, mpsc::UnboundedReceiver<P::Answer>) {
    let (sender, answers) = mpsc::unbounded_channel();
    let (egress, _task) = Probe::spawn(None, Probe(PhantomData), sender).await.unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    (AnswerPath::new(egress, 1, expires, gone), answers)
}

/// An actor in place of an egress.
struct Probe<P>(PhantomData<P>);

impl<P: Payload> Actor for Probe<P> {
    type Msg = EgressCommand<P>;
    type State = mpsc::UnboundedSender<P::Answer>;
    type Arguments = mpsc::UnboundedSender<P::Answer>;

    async fn pre_start(
        &self,
        _myself: ActorRef<EgressCommand<P>>,
        answers: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(answers)
    }

    async fn handle(
        &self,
        _myself: ActorRef<EgressCommand<P>>,
        command: EgressCommand<P>,
        answers: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let EgressCommand::Answer(_, answer) = command {
            // A test that has ended needs no answer.
            let _ = answers.send(answer);
        }
        Ok(())
    }
}
