use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const RULES: Rules =
    Rules { hold_down: Duration::from_secs(30), cooldown: Duration::from_secs(300), flapping: 5 };

const OPEN: Sight = Sight { is_open: true, ..Sight::CLOSED };
const HELD: Sight = Sight { held: Some(OverrideKind::ForceOpen), ..Sight::CLOSED };
const GONE: Sight = Sight { is_registered: false, ..Sight::CLOSED };

/// A story on virtual time, whose notes are the seconds at which things were
/// seen.
struct Bench {
    start: Instant,
    story: Story<u64>,
    told: Vec<(u64, Told<u64>)>,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        #[expect(clippy::disallowed_methods, reason = "where virtual time begins")]
        let start = Instant::now();
        Self { start, story: Story::new(rules, start, Arc::new(0)), told: Vec::new() }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + SECOND * u32::try_from(second).unwrap()
    }

    /// Whoever wakes up when the story says so, and no sooner.
    fn run_until(&mut self, second: u64) {
        let end = self.at(second);
        while let Some(due) = self.story.due().filter(|due| *due <= end) {
            let said = (due - self.start).as_secs();
            let before = self.told.len();
            self.told.extend(self.story.tell(due).map(|told| (said, told)));
            // An instant at which nothing came of it may not come again.
            assert!(self.told.len() > before || self.story.due() != Some(due), "it would spin");
        }
    }

    fn see(&mut self, second: u64, sight: Sight) -> &mut Self {
        self.run_until(second);
        self.story.see(self.at(second), sight, &Arc::new(second));
        self
    }

    /// When each message came, and of what it told.
    fn told_by(&mut self, second: u64) -> Vec<(u64, Vec<(Condition, u64)>)> {
        self.run_until(second);
        let news =
            |told: &Told<u64>| told.news.iter().map(|news| (news.condition, *news.note)).collect();
        self.told.iter().map(|(at, told)| (*at, news(told))).collect()
    }
}

#[test]
fn a_state_is_told_once_it_has_lasted() {
    let mut bench = Bench::new(RULES);
    bench.see(100, OPEN);
    assert_eq!(bench.told_by(129), []);
    assert_eq!(bench.told_by(10_000), [(130, vec![(Condition::Open, 100)])]);
}

#[test]
fn what_is_over_within_the_hold_down_is_not_told() {
    let mut bench = Bench::new(RULES);
    bench.see(100, OPEN).see(129, Sight::CLOSED);
    assert_eq!(bench.told_by(10_000), []);
    // Nor is the good time between two troubles that are.
    bench.see(20_000, OPEN).see(20_040, Sight::CLOSED).see(20_050, OPEN);
    assert_eq!(bench.told_by(30_000), [(20_030, vec![(Condition::Open, 20_000)])]);
}

#[test]
fn it_begins_to_last_when_it_began_and_not_when_it_was_heard_of() {
    let mut bench = Bench::new(RULES);
    let note = Arc::new(100);
    bench.story.see(bench.at(100), OPEN, &note);
    bench.story.see(bench.at(200), Sight::CLOSED, &Arc::new(200));
    // Nobody looked in between; both are told all the same.
    let told = bench.story.tell(bench.at(230)).unwrap();
    assert_eq!(told.news.len(), 2);
    assert_eq!(told.news[0], News { condition: Condition::Open, note });
}

#[test]
fn what_comes_within_a_cooldown_is_summed_up_at_its_end() {
    let mut bench = Bench::new(RULES);
    bench.see(100, OPEN).see(200, Sight::CLOSED).see(260, OPEN).see(270, Sight::CLOSED);
    bench.see(280, OPEN).see(350, Sight::CLOSED);
    assert_eq!(
        bench.told_by(10_000),
        [
            (130, vec![(Condition::Open, 100)]),
            (430, vec![(Condition::Closed, 200), (Condition::Open, 280), (Condition::Closed, 350)]),
        ]
    );
    let (_, last) = &bench.told[1];
    assert_eq!((last.openings, last.brief, last.before), (2, 1, Condition::Open));
}

#[test]
fn a_message_does_not_hide_how_it_is_now() {
    let mut bench = Bench::new(RULES);
    bench.see(100, OPEN).see(200, Sight::CLOSED).see(429, OPEN);
    bench.run_until(430);
    assert_eq!(bench.told[1].1.now, Condition::Open);
    assert_eq!(bench.told[1].1.news.last().unwrap().condition, Condition::Closed);
}

#[test]
fn the_last_word_waits_for_no_cooldown() {
    let mut bench = Bench::new(RULES);
    bench.see(100, OPEN).see(200, Sight::CLOSED);
    bench.run_until(230);
    let told = bench.story.tell_last(bench.at(230)).unwrap();
    assert_eq!((told.before, told.now), (Condition::Open, Condition::Closed));
    assert_eq!(told.news, [News { condition: Condition::Closed, note: Arc::new(200) }]);
    assert_eq!(bench.story.tell_last(bench.at(230)), None);
}

#[test]
fn that_a_trouble_is_over_is_a_last_word_and_that_one_begins_is_none() {
    for (seen, expected) in [
        (&[(100, OPEN), (200, Sight::CLOSED)][..], Some(Condition::Closed)),
        (&[(100, HELD), (200, Sight::CLOSED)], Some(Condition::Closed)),
        (&[(100, OPEN)], None),
        (&[(100, OPEN), (200, HELD)], None),
        // Nobody was told of it.
        (&[(190, OPEN), (200, Sight::CLOSED)], None),
        (&[(200, OPEN)], None),
    ] {
        let mut bench = Bench::new(RULES);
        for (at, sight) in seen {
            bench.see(*at, *sight);
        }
        bench.run_until(201);
        let told = bench.story.tell_last(bench.at(201));
        assert_eq!(told.map(|told| told.news[0].condition), expected, "{seen:?}");
    }
}

#[test]
fn whoever_opens_too_often_flaps_until_ten_minutes_are_calm() {
    let mut bench = Bench::new(RULES);
    for opening in 0..8 {
        bench.see(100 + opening * 20, OPEN).see(110 + opening * 20, Sight::CLOSED);
    }
    // The sixth within ten minutes, at once; and then nothing for ten minutes.
    assert_eq!(bench.told_by(240 + 599), [(200, vec![(Condition::Flapping, 200)])]);
    let calm = (240 + 600, vec![(Condition::Closed, 250)]);
    assert_eq!(bench.told_by(10_000)[1..], [calm]);
    assert_eq!(bench.told[1].1.before, Condition::Flapping);
}

#[test]
fn as_many_openings_as_are_allowed_in_ten_minutes_are_no_flapping() {
    let mut bench = Bench::new(RULES);
    for opening in 0..20 {
        bench.see(opening * 120, OPEN).see(opening * 120 + 10, Sight::CLOSED);
    }
    assert_eq!(bench.told_by(10_000), []);
}

#[test]
fn an_operator_who_takes_over_ends_the_flapping() {
    let mut bench = Bench::new(RULES);
    for opening in 0..6 {
        bench.see(opening * 20, OPEN).see(10 + opening * 20, Sight::CLOSED);
    }
    bench.see(200, HELD);
    assert_eq!(
        bench.told_by(10_000),
        [
            (100, vec![(Condition::Flapping, 100)]),
            (400, vec![(Condition::Held(OverrideKind::ForceOpen), 200)]),
        ]
    );
}

#[test]
fn a_service_that_was_taken_out_is_told_of_if_its_trouble_was() {
    let mut bench = Bench::new(RULES);
    bench.see(100, GONE);
    assert_eq!(bench.told_by(1_000), []);
    assert!(bench.story.is_over(bench.at(1_000)));
    bench.see(2_000, Sight::CLOSED).see(2_100, OPEN).see(2_500, GONE);
    let told = bench.told_by(3_000);
    assert_eq!(
        told,
        [(2_130, vec![(Condition::Open, 2_100)]), (2_500, vec![(Condition::Removed, 2_500)])]
    );
    // Its cooldown is remembered, or a name that comes back could tell too often.
    assert!(!bench.story.is_over(bench.at(2_799)));
    assert!(bench.story.is_over(bench.at(2_800)));
}

#[test]
fn news_without_end_take_no_memory_without_end() {
    let mut bench = Bench::new(Rules { cooldown: SECOND * 1_000_000, flapping: 1_000, ..RULES });
    for round in 0..100 {
        bench.see(round * 200, OPEN).see(round * 200 + 100, Sight::CLOSED);
    }
    let told = bench.told_by(2_000_000);
    assert_eq!(told.len(), 2);
    assert_eq!((told[1].1.len(), bench.told[1].1.left_off), (16, 199 - 16));
}

/// What a person would call news, looking back at all there was: every stretch
/// that lasted and is not of the condition of the one that lasted before it.
fn lasting(seen: &[(u64, Sight)], hold_down: u64, end: u64) -> Vec<(Condition, u64)> {
    let mut stretches: Vec<(Condition, u64)> = vec![(Condition::Closed, 0)];
    for (at, sight) in seen {
        if stretches.last().unwrap().0 != sight.condition() {
            stretches.push((sight.condition(), *at));
        }
    }
    let ends: Vec<u64> = stretches.iter().skip(1).map(|(_, at)| *at).chain([end]).collect();
    let mut news = Vec::new();
    let mut settled = Condition::Closed;
    for ((condition, since), until) in stretches.into_iter().zip(ends) {
        if until - since >= hold_down && condition != settled {
            settled = condition;
            news.push((condition, since));
        }
    }
    news
}

/// Sights with the seconds between them.
fn sights(within: u64) -> impl Strategy<Value = Vec<(u64, Sight)>> {
    let sight = prop_oneof![4 => Just(Sight::CLOSED), 4 => Just(OPEN), 1 => Just(HELD)];
    proptest::collection::vec((1..within, sight), 0..60).prop_map(|steps| {
        let mut now = 0;
        let place = |(gap, sight)| {
            now += gap;
            (now, sight)
        };
        steps.into_iter().map(place).collect()
    })
}

const LONG: u64 = 1_000_000;

proptest! {
    /// Every state that lasts is told exactly once, in its order, with nothing
    /// that does not last; and never is there more than one message in a
    /// cooldown.
    #[test]
    fn all_that_lasts_is_told_once_and_nothing_else(
        seen in sights(100),
        hold_down in 0_u64..60,
        cooldown in 0_u64..400,
    ) {
        let rules = Rules {
            hold_down: SECOND * u32::try_from(hold_down).unwrap(),
            cooldown: SECOND * u32::try_from(cooldown).unwrap(),
            flapping: u32::MAX,
        };
        let mut bench = Bench::new(rules);
        for (at, sight) in &seen {
            bench.see(*at, *sight);
        }
        let told = bench.told_by(LONG);
        let left_off: u32 = bench.told.iter().map(|(_, told)| told.left_off).sum();
        let all: Vec<_> = told.iter().flat_map(|(_, news)| news.clone()).collect();
        let expected = lasting(&seen, hold_down, LONG);
        prop_assert_eq!(all.len() + left_off as usize, expected.len());
        if left_off == 0 {
            prop_assert_eq!(&all, &expected);
        }
        prop_assert!(all.iter().all(|news| expected.contains(news)));
        for pair in told.windows(2) {
            prop_assert!(pair[1].0 - pair[0].0 >= cooldown);
        }
        prop_assert_eq!(bench.story.due(), None);
        prop_assert_eq!(bench.story.tell_last(bench.at(LONG)), None);
    }

    /// However it flaps: no condition is told twice in a row, no note serves
    /// twice for the same condition, the cooldown holds, and what is told last
    /// is what is.
    #[test]
    fn flapping_or_not_each_message_says_something_new(
        seen in sights(90),
        flapping in 0_u32..6,
        cooldown in 0_u64..900,
    ) {
        let cooldown_for = SECOND * u32::try_from(cooldown).unwrap();
        let mut bench = Bench::new(Rules { cooldown: cooldown_for, flapping, ..RULES });
        for (at, sight) in &seen {
            bench.see(*at, *sight);
        }
        let told = bench.told_by(LONG);
        for pair in told.windows(2) {
            prop_assert!(pair[1].0 - pair[0].0 >= cooldown);
        }
        let mut before = Condition::Closed;
        for (_, message) in &bench.told {
            prop_assert!(!message.news.is_empty());
            prop_assert_eq!(message.before, before);
            if message.left_off == 0 {
                prop_assert_ne!(message.news[0].condition, before);
            }
            for pair in message.news.windows(2) {
                prop_assert_ne!(pair[0].condition, pair[1].condition);
            }
            before = message.news.last().unwrap().condition;
        }
        let mut all: Vec<_> = told.into_iter().flat_map(|(_, news)| news).collect();
        let count = all.len();
        all.sort_by_key(|(condition, note)| (*note, format!("{condition:?}")));
        all.dedup();
        prop_assert_eq!(all.len(), count);
        let last = seen.last().map_or(Condition::Closed, |(_, sight)| sight.condition());
        prop_assert_eq!(before, last);
    }
}
