//! Each step in each state, as the API's table says, and a model that reads everything from the list of what
//! was made.

use proptest::prelude::*;

use super::*;

/// Returns a decision in short.
fn short(decision: &Decision) -> &'static str {
    match decision {
        Decision::Enter(_) => "enter",
        Decision::Replay => "replay",
        Decision::Refuse(refusal) => match refusal {
            UseRefusal::UnknownIssuance => "UNKNOWN",
            UseRefusal::OrderMismatch(_) => "MISMATCH",
            UseRefusal::Revoked => "REVOKED",
            UseRefusal::Redeemed(_) => "REDEEMED",
            UseRefusal::Reserved { .. } => "RESERVED",
            UseRefusal::Expired { .. } => "EXPIRED",
            UseRefusal::BelowMinimum { .. } => "BELOW",
            UseRefusal::NotReserved => "NOT_RESERVED",
            UseRefusal::NotRedeemed => "NOT_REDEEMED",
        },
    }
}

/// The steps of the columns, by the order `a`.
fn columns() -> [Step; 10] {
    [
        reserve("a", 2_000),
        reserve("a", 2_001),
        reserve("a", 999),
        redeem("a", 2_000),
        redeem("a", 2_001),
        redeem("a", None),
        release("a"),
        refund("a"),
        revoke(true),
        revoke(false),
    ]
}

/// A state: the steps that lead to it. A hold is longer than the issuance can be used, or lapses at once.
struct State {
    steps: Vec<Step>,
    before_its_end: [&'static str; 10],
    after_its_end: [&'static str; 10],
}

fn hold(order_name: &str) -> Step {
    Step::Reserve {
        order: order(order_name),
        amount: 2_000,
        hold_seconds: 10_000,
    }
}

fn lapse(order_name: &str) -> Step {
    Step::Reserve {
        order: order(order_name),
        amount: 2_000,
        hold_seconds: 0,
    }
}

fn pay(order_name: &str) -> Step {
    redeem(order_name, 2_000)
}

/// Returns a row: `.` for an entry, `=` for a replay, otherwise enough of the first letters of a refusal.
fn row(text: &str) -> [&'static str; 10] {
    let cells = text.split_whitespace().map(|cell| match cell {
        "." => "enter",
        "=" => "replay",
        "MIS" => "MISMATCH",
        "REV" => "REVOKED",
        "RED" => "REDEEMED",
        "RES" => "RESERVED",
        "EXP" => "EXPIRED",
        "MIN" => "BELOW",
        "NRS" => "NOT_RESERVED",
        "NRD" => "NOT_REDEEMED",
        other => panic!("{other}"),
    });
    cells.collect::<Vec<_>>().try_into().unwrap()
}

fn state(steps: impl Into<Vec<Step>>, before_its_end: &str, after_its_end: &str) -> State {
    State {
        steps: steps.into(),
        before_its_end: row(before_its_end),
        after_its_end: row(after_its_end),
    }
}

/// The columns are those of [`columns`].
#[rustfmt::skip]
fn states() -> Vec<State> {
    let state = |steps: &[Step], before: &str, after: &str| state(steps, before, after);
    vec![
        // No order has it.
        state(&[],                                          ". . MIN . . NRS NRS NRD . .",           "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        state(&[lapse("a")],                                ". . MIN . . . NRS NRD . .",             "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        state(&[lapse("b")],                                ". . MIN . . NRS NRS NRD . .",           "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        state(&[lapse("a"), lapse("b")],                    ". . MIN . . NRS NRS NRD . .",           "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        state(&[hold("b"), release("b")],                   ". . MIN . . NRS NRS NRD . .",           "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        state(&[pay("b"), refund("b")],                     ". . MIN . . NRS NRS NRD . .",           "EXP EXP EXP EXP EXP EXP EXP EXP EXP EXP"),
        // The order gave it back.
        state(&[hold("a"), release("a")],                   ". . MIN . . NRS = NRD . .",             "EXP EXP EXP EXP EXP EXP = EXP EXP EXP"),
        state(&[hold("a"), release("a"), lapse("a")],       ". . MIN . . . = NRD . .",               "EXP EXP EXP EXP EXP EXP = EXP EXP EXP"),
        state(&[hold("a"), release("a"), lapse("b")],       ". . MIN . . NRS = NRD . .",             "EXP EXP EXP EXP EXP EXP = EXP EXP EXP"),
        state(&[pay("a"), refund("a")],                     ". . MIN = MIS = NRS = . .",             "EXP EXP EXP = MIS = EXP = EXP EXP"),
        state(&[pay("a"), refund("a"), lapse("a")],         ". . MIN . . . NRS = . .",               "EXP EXP EXP EXP EXP EXP EXP = EXP EXP"),
        state(&[pay("a"), refund("a"), lapse("b")],         ". . MIN = MIS = NRS = . .",             "EXP EXP EXP = MIS = EXP = EXP EXP"),
        state(&[pay("a"), refund("a"), hold("a"), release("a")], ". . MIN . . NRS = = . .",          "EXP EXP EXP EXP EXP EXP = = EXP EXP"),
        state(&[pay("a"), refund("a"), pay("b"), refund("b")],   ". . MIN = MIS = NRS = . .",        "EXP EXP EXP = MIS = EXP = EXP EXP"),
        // The order holds it.
        state(&[hold("a")],                                 "= MIS MIS . MIS . . NRD RES RES",       "= MIS MIS . MIS . . EXP RES RES"),
        state(&[hold("a"), release("a"), hold("a")],        "= MIS MIS . MIS . . NRD RES RES",       "= MIS MIS . MIS . . EXP RES RES"),
        state(&[pay("a"), refund("a"), hold("a")],          "= MIS MIS . MIS . . NRD RES RES",       "= MIS MIS . MIS . . EXP RES RES"),
        // Another order holds it.
        state(&[hold("b")],                                 "RES RES RES RES RES RES RES RES RES RES", "RES RES RES RES RES RES RES RES RES RES"),
        state(&[hold("a"), release("a"), hold("b")],        "RES RES RES RES RES RES = RES RES RES", "RES RES RES RES RES RES = RES RES RES"),
        state(&[pay("a"), refund("a"), hold("b")],          "RES RES RES = MIS = RES = RES RES",     "RES RES RES = MIS = RES = RES RES"),
        // The order redeemed it.
        state(&[pay("a")],                                  "RED MIS MIS = MIS = RED . RED RED",     "RED MIS MIS = MIS = RED . RED RED"),
        state(&[hold("a"), pay("a")],                       "RED MIS MIS = MIS = RED . RED RED",     "RED MIS MIS = MIS = RED . RED RED"),
        state(&[hold("a"), release("a"), pay("a")],         "RED MIS MIS = MIS = RED . RED RED",     "RED MIS MIS = MIS = RED . RED RED"),
        // Another order redeemed it.
        state(&[pay("b")],                                  "RED RED RED RED RED RED RED RED RED RED", "RED RED RED RED RED RED RED RED RED RED"),
        state(&[hold("a"), release("a"), pay("b")],         "RED RED RED RED RED RED = RED RED RED", "RED RED RED RED RED RED = RED RED RED"),
        state(&[pay("a"), refund("a"), pay("b")],           "RED RED RED = MIS = RED = RED RED",     "RED RED RED = MIS = RED = RED RED"),
        // It is revoked.
        state(&[revoke(true)],                              "REV REV REV REV REV REV REV REV = MIS", "REV REV REV REV REV REV REV REV = MIS"),
        state(&[hold("a"), release("a"), revoke(true)],     "REV REV REV REV REV REV = REV = MIS",   "REV REV REV REV REV REV = REV = MIS"),
        state(&[pay("a"), refund("a"), revoke(true)],       "REV REV REV = MIS = REV = = MIS",       "REV REV REV = MIS = REV = = MIS"),
    ]
}

#[test]
fn each_step_in_each_state_is_decided_by_the_first_row_that_fits() {
    for State {
        steps,
        before_its_end,
        after_its_end,
    } in states()
    {
        let life = Life::new(&steps);
        for (second, expected) in [(900, before_its_end), (1_000, after_its_end)] {
            let found = columns().map(|step| short(&life.decide(second, &step)));
            assert_eq!(found, expected, "after {steps:?}, at second {second}");
        }
    }
}

/// What an issuance is, by the list of what was made.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Free,
    Held(OrderId),
    Redeemed(OrderId),
    Revoked,
}

impl Model {
    fn of(made: &[LatestUse], now: i64) -> Self {
        let Some(last) = made.last() else {
            return Self::Free;
        };
        match (last.kind, last.order.clone()) {
            (UseKind::Reserved, Some(order)) if last.hold_until > Some(seconds(now)) => Self::Held(order),
            (UseKind::Redeemed, Some(order)) => Self::Redeemed(order),
            (UseKind::Revoked, _) => Self::Revoked,
            _ => Self::Free,
        }
    }
}

/// Returns what the rules say: first the repetitions, then the rows of the table from top to bottom.
fn expected(made: &[LatestUse], now: i64, step: &Step) -> &'static str {
    let model = Model::of(made, now);
    let own: Vec<&LatestUse> = made
        .iter()
        .filter(|made| made.order.as_ref() == step.order())
        .collect();
    let place = |kind: UseKind| own.iter().rposition(|made| made.kind == kind);
    let has = step
        .order()
        .is_some_and(|order| [Model::Held(order.clone()), Model::Redeemed(order.clone())].contains(&model));
    let holds = has && matches!(model, Model::Held(_));
    let paid = |amount: u64| own.last().unwrap().figures.unwrap().amount == amount;
    let again = |is_same: bool| if is_same { "replay" } else { "MISMATCH" };
    match step {
        Step::Reserve { amount, .. } if holds => return again(paid(*amount)),
        Step::Reserve { amount, .. } if has && !paid(*amount) => return "MISMATCH",
        Step::Redeem { amount, .. } if place(UseKind::Redeemed) > place(UseKind::Reserved) => {
            // Its latest use is the redemption or the refund, which has the same figures.
            return again(amount.is_none_or(paid));
        }
        Step::Redeem {
            amount: Some(amount), ..
        } if holds && !paid(*amount) => return "MISMATCH",
        Step::Redeem { .. } | Step::Release { .. } if holds => return "enter",
        Step::Refund { .. } if has && !holds => return "enter",
        Step::Release { .. } if !has && place(UseKind::Released).is_some() => return "replay",
        Step::Refund { .. } if !has && place(UseKind::Refunded).is_some() => return "replay",
        Step::Revoke { returns, .. } if model == Model::Revoked => {
            return again(made.last().unwrap().returns == *returns);
        }
        _ => {}
    }
    let fixed = made
        .last()
        .filter(|last| last.kind == UseKind::Reserved && last.order.as_ref() == step.order());
    let amount = match step {
        Step::Reserve { amount, .. } => Some(*amount),
        Step::Redeem { amount, .. } => amount.or(fixed.map(|fixed| fixed.figures.unwrap().amount)),
        _ => None,
    };
    match (model, step) {
        (Model::Revoked, _) => "REVOKED",
        (Model::Redeemed(_), _) => "REDEEMED",
        (Model::Held(order), step) if Some(&order) != step.order() => "RESERVED",
        _ if now >= 1_000 => "EXPIRED",
        (_, Step::Reserve { .. } | Step::Redeem { .. }) if amount.is_some_and(|amount| amount < 1_000) => {
            "BELOW"
        }
        (_, Step::Redeem { .. }) if amount.is_none() => "NOT_RESERVED",
        (_, Step::Release { .. }) => "NOT_RESERVED",
        (_, Step::Refund { .. }) => "NOT_REDEEMED",
        _ => "enter",
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![Just(None), Just(Some(999)), Just(Some(1_000)), Just(Some(2_000))];
    let hold = prop_oneof![Just(1_u32), Just(20), Just(86_400)];
    (0..9_u8, 0..3_u8, amount, hold).prop_map(|(kind, number, amount, hold_seconds)| {
        let order = order(&format!("order-{number}"));
        match kind {
            0..3 => Step::Reserve {
                order,
                amount: amount.unwrap_or(1_500),
                hold_seconds,
            },
            3..5 => Step::Redeem { order, amount },
            5 | 6 => Step::Release { order },
            7 => Step::Refund { order },
            // A revoked one has no further life, so most lives end without.
            _ if number == 0 && hold_seconds == 1 => revoke(amount.is_none()),
            _ => Step::Refund { order },
        }
    })
}

/// When a step is taken.
#[derive(Debug, Clone)]
enum When {
    /// So many seconds after the step before. The clock goes back if the next owner's clock is behind.
    Passed(i64),
    /// So many seconds after the end of the last hold: just before it, or exactly then.
    AtEndOfHold(i64),
    /// So many seconds after the end of use.
    AtEndOfUse(i64),
}

impl When {
    fn second(&self, before: i64, made: &[LatestUse]) -> i64 {
        let hold = made.iter().rev().find_map(|made| made.hold_until);
        match self {
            Self::Passed(passed) => before + passed,
            Self::AtEndOfHold(passed) => hold.map_or(before, |until| until.as_micros() / 1_000_000 + passed),
            Self::AtEndOfUse(passed) => END / 1_000_000 + passed,
        }
    }
}

fn any_time() -> impl Strategy<Value = When> {
    prop_oneof![
        8 => (-20..40_i64).prop_map(When::Passed),
        2 => (-1..=0_i64).prop_map(When::AtEndOfHold),
        1 => (-1..=0_i64).prop_map(When::AtEndOfUse),
        // A clock that is far behind.
        1 => (-500..-300_i64).prop_map(When::Passed),
    ]
}

proptest! {
    /// Whatever is asked and whenever, also after the uses were loaded again or the clock was set back: the
    /// machine decides what the rules say, and a quote says what a reservation then fixes. The time of a use is
    /// that of its decision, from which a hold is as long as it was asked for.
    #[test]
    fn the_machine_agrees_with_a_model(steps in proptest::collection::vec((any_step(), any_time(), any::<bool>()), 1..60)) {
        let mut life = Life::new(&[]);
        let (mut made, mut now) = (Vec::<LatestUse>::new(), 600_i64);
        for (step, when, reload) in steps {
            now = when.second(now, &made);
            if reload {
                life.uses = Uses::default();
                made.iter().for_each(|made| life.push(made));
            }
            let terms = Terms { offer: &life.offer, expires_at: Some(at(END)) };
            let quote = |amount| terms.quote(life.latest().as_ref(), seconds(now), amount);
            let quote = if let Step::Reserve { amount, .. } = &step { Some(quote(*amount)) } else { None };
            let rule = expected(&made, now, &step);
            let decision = life.take(now, &step);
            prop_assert_eq!(short(&decision), rule, "{:?} after {:?}", step, made);
            if let Decision::Enter(use_made) = decision {
                if let Some(quote) = quote {
                    prop_assert_eq!((use_made.figures, quote.refusal), (Some(quote.figures), None));
                }
                prop_assert_eq!((use_made.kind, use_made.order.as_ref()), (kind(&step), step.order()));
                let hold_until = if let Step::Reserve { hold_seconds, .. } = step {
                    Some(seconds(now).plus_seconds(hold_seconds))
                } else {
                    None
                };
                prop_assert_eq!((use_made.at, use_made.hold_until), (seconds(now), hold_until));
                made.push(use_made);
            }
        }
    }
}
