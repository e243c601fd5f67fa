//! What is said, whoever it is said to.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tower_breaker::OverrideKind;

use super::policy::{Condition, News, Told};

/// Longer texts are cut: they come from people, and go to people.
const LONGEST: usize = 2_000;

/// Something that happened, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of the event: the registry's epoch and the event's number.
    pub id: String,
    pub at: SystemTime,
    pub sentence: String,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// One message to one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub service: String,
    pub told: Told<Note>,
    /// By what is a trouble called brief.
    pub hold_down: Duration,
    /// How many messages before this one were lost.
    pub lost: u64,
}

impl Message {
    /// The same for the same message, however often it is sent: the id of the
    /// event that it is about. One event may be the first sign of flapping, and
    /// be told as an opening once that is over.
    pub fn id(&self) -> String {
        match self.told.news.last() {
            Some(News { condition: Condition::Flapping, note }) => format!("{}-flapping", note.id),
            Some(News { note, .. }) => note.id.clone(),
            None => String::new(),
        }
    }

    fn last(&self) -> Option<&News<Note>> {
        self.told.news.last()
    }

    /// One line.
    pub fn title(&self) -> String {
        let condition = self.last().map_or(self.told.now, |news| news.condition);
        let was = match self.told.news.len() {
            0 | 1 => self.told.before,
            count => self.told.news[count - 2].condition,
        };
        let is = match (condition, was) {
            (Condition::Closed, Condition::Flapping) => "is calm again, and closed",
            (Condition::Open, Condition::Flapping) => "flaps no longer, and is open",
            (Condition::Closed, _) => "is closed again",
            (Condition::Open, _) => "is open",
            (Condition::Flapping, _) => "is flapping: it opens again and again",
            (Condition::Held(OverrideKind::ForceOpen), _) => "is held open",
            (Condition::Held(OverrideKind::ForceClosed), _) => "is held closed",
            (Condition::Held(_), _) => "is only observed",
            (Condition::Removed, _) => "was removed",
        };
        one_line(&format!("{} {is}", self.service))
    }

    /// What there is to say beside the title, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut news = self.told.news.iter().rev();
        if let Some(News { note, .. }) = news.next() {
            let mut line = format!("Since {}. {}", date(note.at), note.sentence);
            if let Some(by) = note.by.as_ref().filter(|by| !note.sentence.contains(by.as_str())) {
                let _ = write!(line, " (by {by})");
            }
            let reason = note.reason.as_ref();
            if let Some(reason) = reason.filter(|why| !note.sentence.contains(why.as_str())) {
                let _ = write!(line, ": {reason}");
            }
            lines.push(line);
        }
        let last = self.last().map(|news| news.condition);
        if last != Some(self.told.now) {
            lines.push(format!("Right now it is {}.", spoken(self.told.now)));
        }
        for News { condition, note } in news {
            lines.push(format!("Before, from {}: {}.", date(note.at), spoken(*condition)));
        }
        if self.told.left_off > 0 {
            lines.push(format!("And {} changes before that.", self.told.left_off));
        }
        if self.told.openings > 1 || self.told.brief > 0 {
            let mut line = format!("Openings since the last message: {}", self.told.openings);
            if self.told.brief > 0 {
                let _ = write!(line, "; {} were over within {:?}", self.told.brief, self.hold_down);
            }
            lines.push(line + ".");
        }
        match self.lost {
            0 => {}
            1 => lines.push("One message before this could not be delivered.".to_owned()),
            lost => lines.push(format!("{lost} messages before this could not be delivered.")),
        }
        lines.iter().map(|line| one_line(line)).collect()
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        let shown = |news: &News<Note>| {
            json!({
                "condition": word(news.condition),
                "event": news.note.id,
                "since": date(news.note.at),
                "sentence": news.note.sentence,
                "by": news.note.by,
                "reason": news.note.reason,
            })
        };
        let earlier = self.told.news.len().saturating_sub(1);
        json!({
            "version": 1,
            "id": self.id(),
            "service": self.service,
            "title": self.title(),
            "news": self.last().map(shown),
            "before": word(self.told.before),
            "now": word(self.told.now),
            "earlier": self.told.news.iter().take(earlier).map(shown).collect::<Value>(),
            "earlier_left_off": self.told.left_off,
            "openings": self.told.openings,
            "brief_openings": self.told.brief,
            "messages_lost": self.lost,
        })
    }
}

/// For a program.
fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Closed => "closed",
        Condition::Open => "open",
        Condition::Flapping => "flapping",
        Condition::Held(OverrideKind::ForceOpen) => "force_open",
        Condition::Held(OverrideKind::ForceClosed) => "force_closed",
        Condition::Held(_) => "observe_only",
        Condition::Removed => "removed",
    }
}

/// For a person.
fn spoken(condition: Condition) -> &'static str {
    match condition {
        Condition::Closed => "closed",
        Condition::Open => "open",
        Condition::Flapping => "flapping",
        Condition::Held(OverrideKind::ForceOpen) => "held open",
        Condition::Held(OverrideKind::ForceClosed) => "held closed",
        Condition::Held(_) => "only observed",
        Condition::Removed => "removed",
    }
}

fn date(date: SystemTime) -> String {
    humantime::format_rfc3339_seconds(date.max(UNIX_EPOCH)).to_string()
}

/// Without line ends and other control characters, and no longer than it may
/// be: a reason is a person's, and may end up in a header.
pub fn one_line(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn note(number: u64, sentence: &str) -> Arc<Note> {
        Arc::new(Note {
            id: format!("9f86d081884c7d65-{number}"),
            at: UNIX_EPOCH + Duration::from_secs(1_000_000_000 + number),
            sentence: sentence.to_owned(),
            by: None,
            reason: None,
        })
    }

    fn message(before: Condition, news: &[(Condition, u64, &str)]) -> Message {
        let news: Vec<_> = news
            .iter()
            .map(|&(condition, number, sentence)| News { condition, note: note(number, sentence) })
            .collect();
        let now = news.last().unwrap().condition;
        let told = Told { before, news, left_off: 0, openings: 1, brief: 0, now };
        Message { service: "orders".into(), told, hold_down: Duration::from_secs(30), lost: 0 }
    }

    #[test]
    fn the_title_says_what_it_came_to() {
        use Condition::{Closed, Flapping, Held, Open, Removed};
        for (before, is, title) in [
            (Closed, Open, "orders is open"),
            (Open, Closed, "orders is closed again"),
            (Flapping, Closed, "orders is calm again, and closed"),
            (Flapping, Open, "orders flaps no longer, and is open"),
            (Closed, Flapping, "orders is flapping: it opens again and again"),
            (Closed, Held(OverrideKind::ForceOpen), "orders is held open"),
            (Open, Held(OverrideKind::ObserveOnly), "orders is only observed"),
            (Open, Removed, "orders was removed"),
        ] {
            assert_eq!(message(before, &[(is, 1, "")]).title(), title);
        }
    }

    #[test]
    fn what_was_summed_up_is_told_with_what_was_lost() {
        let mut message = message(
            Condition::Open,
            &[(Condition::Closed, 7, "well again"), (Condition::Open, 9, "6 of 10 calls failed")],
        );
        message.told.now = Condition::Closed;
        (message.told.openings, message.told.brief, message.lost) = (4, 2, 3);
        assert_eq!(
            message.lines(),
            [
                "Since 2001-09-09T01:46:49Z. 6 of 10 calls failed",
                "Right now it is closed.",
                "Before, from 2001-09-09T01:46:47Z: closed.",
                "Openings since the last message: 4; 2 were over within 30s.",
                "3 messages before this could not be delivered.",
            ]
        );
        assert_eq!(message.id(), "9f86d081884c7d65-9");
    }

    #[test]
    fn the_first_sign_of_flapping_and_an_opening_are_two_messages() {
        let flapping = message(Condition::Closed, &[(Condition::Flapping, 9, "")]);
        let open = message(Condition::Flapping, &[(Condition::Open, 9, "")]);
        assert_ne!(flapping.id(), open.id());
    }

    #[test]
    fn no_line_has_more_lines_in_it() {
        let mut message =
            message(Condition::Closed, &[(Condition::Open, 1, "a\r\nBcc: b\u{2028}c")]);
        message.service = "x\nSubject: y".into();
        assert!(!message.title().contains('\n'));
        assert!(message.lines().iter().all(|line| !line.contains(['\r', '\n', '\u{2028}'])));
    }
}
