//! Hours of the week in a place: `mon-fri 09:00-17:30 Europe/Berlin`.
//!
//! Read by `functions` for `now.during(…)`. The time is an argument: nothing here asks a clock. Rules of time zones are those
//! of the machine; a zone that it does not know is a mistake in the policy.

use jiff::{
    Timestamp,
    civil::{Time, Weekday},
    tz::TimeZone,
};

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Days of the week, a time of the day, and the zone in which both are meant.
#[derive(Debug)]
pub(super) struct Hours {
    /// From Monday on.
    days: [bool; 7],
    /// From this minute of the day on…
    from: i16,
    /// …and before this one. At most `from`: over midnight, into the day after.
    until: i16,
    zone: TimeZone,
}

impl Hours {
    /// Reads `[DAYS] FROM-UNTIL ZONE`; the error says what is wrong, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let usage = "write for example `mon-fri 09:00-17:30 Europe/Berlin`";
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let (days, hours, zone) = match words.as_slice() {
            [days, hours, zone] => (days_of(days)?, *hours, *zone),
            [hours, zone] => ([true; 7], *hours, *zone),
            _ => return Err(usage.to_owned()),
        };
        let (from, until) = hours.split_once('-').ok_or(usage)?;
        let (from, until) = (minute_of(from, 0)?, minute_of(until, 1)?);
        if from == until {
            return Err("the hours end when they begin".to_owned());
        }
        let zone = if zone == "UTC" {
            TimeZone::UTC
        } else {
            TimeZone::get(zone).map_err(|_| format!("this machine knows no time zone `{zone}`"))?
        };
        Ok(Self { days, from, until, zone })
    }

    /// Whether `moment` is in them.
    pub(super) fn contain(&self, moment: Timestamp) -> bool {
        let there = moment.to_zoned(self.zone.clone());
        let minute = i16::from(there.hour()) * 60 + i16::from(there.minute());
        let is_on = |day: Weekday| self.days[usize::from(day.to_monday_zero_offset().unsigned_abs())];
        let today = there.weekday();
        if self.from < self.until {
            is_on(today) && (self.from..self.until).contains(&minute)
        } else {
            // Over midnight: what began yesterday still counts this morning.
            (is_on(today) && minute >= self.from) || (is_on(today.previous()) && minute < self.until)
        }
    }
}

/// `mon-fri`, `sat,sun`, `mon,wed-fri`.
fn days_of(text: &str) -> Result<[bool; 7], String> {
    let day = |word: &str| {
        let known = WEEKDAYS.iter().position(|(name, _)| *name == word);
        known.ok_or_else(|| format!("`{word}` is no day: write mon, tue, wed, thu, fri, sat or sun"))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for at in 0..=(last + 7 - first) % 7 {
            days[(first + at) % 7] = true;
        }
    }
    Ok(days)
}

/// The minute of the day of `09:00`; `24:00` only where hours end.
fn minute_of(text: &str, end: i16) -> Result<i16, String> {
    let told = || format!("`{text}` is no time of the day, such as 09:00");
    if text == "24:00" && end == 1 {
        return Ok(24 * 60);
    }
    if text.len() != 5 {
        return Err(told());
    }
    let time: Time = Time::strptime("%H:%M", text).map_err(|_| told())?;
    Ok(i16::from(time.hour()) * 60 + i16::from(time.minute()))
}
