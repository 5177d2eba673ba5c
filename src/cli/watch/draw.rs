//! How the terminal UI looks. It shows what `screen` knows and changes only what depends on the size of the terminal.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph, Row, Table, TableState},
};

use super::screen::{Detail, Screen, What};
use crate::{cli::render, control::api::HoldView, hold::State, sanitize, view::counted};

/// Below this nothing can be read, so nothing is shown and nothing can be decided.
const COLUMNS_MIN: u16 = 40;

/// The same for rows.
const ROWS_MIN: u16 = 8;

/// The widest row of one hold, in columns.
const DETAIL_COLUMNS_MAX: u16 = 120;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const SOFT: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const CAREFUL: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);

/// Draws all of it.
pub(super) fn draw(screen: &mut Screen, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        // Whoever cannot see all of a row cannot decide by it.
        screen.detail = None;
        screen.typed = None;
        frame.render_widget(Paragraph::new("too small"), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    draw_head(screen, frame, head);
    match (&mut screen.detail, &screen.past) {
        (Some(detail), _) => draw_detail(detail, frame, body),
        (None, Some(past)) => draw_past(past, frame, body),
        (None, None) => draw_list(screen, frame, body),
    }
    draw_foot(screen, frame, foot);
}

fn draw_head(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let mut spans = vec![
        Span::styled(" ══╌╌ Holdshort ", BOLD.fg(Color::Yellow)),
        Span::styled(format!(" {} waiting ", screen.board.len()), BOLD),
        Span::styled(format!(" {} ", counted(screen.board.gates().count(), "gate")), SOFT),
    ];
    if screen.board.silent().next().is_some() {
        // Whoever takes the list for all of it misses what waits there.
        let silent = screen.board.silent().map(|silent| silent.registered.pid.to_string());
        let silent = silent.collect::<Vec<_>>().join(", ");
        spans.push(Span::styled(format!(" no answer from the gate of process {silent} "), CAREFUL));
    }
    if !screen.filter.is_empty() {
        spans.push(Span::raw(format!(" only “{}” ", sanitize::render(&screen.filter))));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_list(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let listed = screen.listed();
    if listed.is_empty() {
        let text = if screen.board.is_empty() { "Nothing waits." } else { "Nothing that waits says this." };
        frame.render_widget(Paragraph::new(text).centered().block(Block::new().borders(Borders::TOP)), area);
        return;
    }
    let rows = listed.iter().map(|hold| {
        let (age, left) = Screen::clocks(hold);
        Row::new([
            hold.id.short(),
            left,
            age,
            render::name(&hold.server),
            render::name(render::what(hold)),
            sanitize::render_cut(hold.arguments.get(), usize::from(area.width)).text,
        ])
    });
    let widths = [
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Max(14),
        Constraint::Max(24),
        Constraint::Min(10),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(["ID", "LEFT", "AGE", "SERVER", "TOOL", "ARGUMENTS"]).style(SOFT))
        .row_highlight_style(CHOSEN);
    let mut state = TableState::new().with_selected(screen.place(&listed));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_past(past: &[HoldView], frame: &mut Frame<'_>, area: Rect) {
    let rows = past.iter().map(|hold| {
        let vote = hold.votes.last().map(render::vote_text).unwrap_or_default();
        Row::new([
            hold.id.short(),
            render::since(hold.created_at),
            render::name(render::what(hold)),
            hold.state.to_string(),
            vote,
        ])
    });
    let widths = [
        Constraint::Length(7),
        Constraint::Length(12),
        Constraint::Max(24),
        Constraint::Length(12),
        Constraint::Min(10),
    ];
    let head = Row::new(["ID", "AGO", "TOOL", "BECAME", "WHO AND WHY"]).style(SOFT);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn draw_detail(detail: &mut Detail, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::new().borders(Borders::TOP | Borders::BOTTOM);
    let inner = block.inner(area);
    let columns = inner.width.min(DETAIL_COLUMNS_MAX);
    detail.fit(usize::from(columns), usize::from(inner.height));
    let (first, last) = (detail.top + 1, (detail.top + detail.room).min(detail.rows.len()));
    let place = format!(" rows {first} to {last} of {} ", detail.rows.len());
    let lines = detail.rows.iter().skip(detail.top).take(detail.room).map(|row| {
        let style = if row.starts_with("WARNING") { CAREFUL } else { Style::new() };
        Line::styled(row.clone(), style)
    });
    let paragraph = Paragraph::new(lines.collect::<Vec<_>>());
    frame.render_widget(block.title_bottom(place), area);
    frame.render_widget(paragraph, inner);
}

fn draw_foot(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    frame.render_widget(Clear, area);
    if let Some(typed) = &screen.typed {
        let asks = match typed.what {
            What::Filter => "Search",
            What::Comment => "APPROVE with comment (Enter approves, Esc does not)",
            What::Reason => "REJECT because (Enter rejects, Esc does not)",
        };
        let text = format!(" {asks}: {}▏", sanitize::render(&typed.text));
        // The end of what is typed stays in view.
        let over = sanitize::columns(&text).saturating_sub(usize::from(area.width));
        let paragraph = Paragraph::new(text).style(BOLD).scroll((0, u16::try_from(over).unwrap_or(0)));
        frame.render_widget(paragraph, area);
        return;
    }
    let keys = match (&screen.detail, &screen.past) {
        (Some(detail), _) if detail.hold.state != State::Held => " Esc back ",
        (Some(detail), _) if !detail.is_read => " space goes on   r reject   Esc back ",
        (Some(_), _) => " a approve   r reject   space goes on   Esc back ",
        (None, Some(_)) => " Esc back ",
        (None, None) => " j k choose   Enter read   / search   h history   q end ",
    };
    let told = Span::styled(screen.told.clone(), CAREFUL);
    frame.render_widget(Line::from(vec![Span::styled(keys, SOFT), told]), area);
}
