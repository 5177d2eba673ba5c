//! Scenarios for the line codec, above all that the way a stream is cut into reads never shows.

use proptest::prelude::*;

use super::*;

/// Feeds `chunks` one after the other and collects the lines, as `FramedRead` does.
fn decode<'a>(max_line_bytes: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Line> {
    let mut codec = LineCodec::new(max_line_bytes);
    let mut buffer = BytesMut::new();
    let mut lines = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Some(line) = codec.decode(&mut buffer).unwrap() {
            lines.push(line);
        }
        assert!(buffer.len() < max_line_bytes.max(1), "{} bytes are kept", buffer.len());
    }
    while let Some(line) = codec.decode_eof(&mut buffer).unwrap() {
        lines.push(line);
    }
    lines
}

fn text(line: &'static [u8]) -> Line {
    Line::Text(Bytes::from_static(line))
}

#[test]
fn lines_keep_their_terminators_and_their_order() {
    let lines = decode(100, [b"one\ntwo\r\n\n \t\r\nthree\rfour\n".as_slice()]);
    assert_eq!(lines, [text(b"one\n"), text(b"two\r\n"), Line::Blank, Line::Blank, text(b"three\rfour\n")]);
}

#[test]
fn a_line_without_its_end_is_never_a_line() {
    assert_eq!(decode(100, [b"one\ntwo".as_slice()]), [text(b"one\n"), Line::Unterminated(3)]);
    assert_eq!(decode(100, [b"two\r".as_slice()]), [Line::Unterminated(4)]);
    assert_eq!(decode(100, [b" \t".as_slice()]), [Line::Blank]);
    assert_eq!(decode(100, [b"".as_slice()]), []);
    assert_eq!(decode(3, [b"far too".as_slice(), b" long"]), [Line::Unterminated(12)]);
    assert_eq!(decode(3, [b"          ".as_slice()]), [Line::Unterminated(10)]);
    assert_eq!(decode(2, [b"\ra".as_slice()]), [Line::Unterminated(2)]);
}

#[test]
fn an_oversize_line_is_thrown_away_as_it_comes_and_reported_once() {
    let megabyte = vec![b'a'; 1 << 20];
    let mut chunks = vec![b"one\n".as_slice()];
    chunks.extend(std::iter::repeat_n(megabyte.as_slice(), 64));
    chunks.extend([b"tail\ntwo\n".as_slice()]);
    let lines = decode(1_000, chunks);
    assert_eq!(lines, [text(b"one\n"), oversize((64 << 20) + 5, &[b'a'; 1_000]), text(b"two\n")]);
}

#[test]
fn the_limit_counts_the_terminator() {
    assert_eq!(decode(4, [b"abc\n".as_slice()]), [text(b"abc\n")]);
    assert_eq!(decode(4, [b"abcd\n".as_slice()]), [oversize(5, b"abcd")]);
    assert_eq!(decode(4, [b"abcd".as_slice(), b"\n"]), [oversize(5, b"abcd")]);
}

#[test]
fn ten_thousand_lines_in_one_read_come_out_in_order() {
    let stream: String = (0..10_000).map(|n| format!("{{\"id\":{n}}}\n")).collect();
    let lines = decode(100, [stream.as_bytes()]);
    assert_eq!(lines.len(), 10_000);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line, &Line::Text(Bytes::from(format!("{{\"id\":{n}}}\n"))));
    }
}

#[test]
fn one_byte_at_a_time_is_the_same_line() {
    let line: Vec<u8> = [vec![b'x'; 1 << 16], b"\n".to_vec()].concat();
    assert_eq!(decode(1 << 20, line.chunks(1)), [Line::Text(Bytes::from(line.clone()))]);
}

/// Bytes of the memory that a line keeps alive, if it is the only one that does.
fn backing(line: Line) -> usize {
    let Line::Text(line) = line else { panic!("{line:?} is no text") };
    line.try_into_mut().map_or_else(|_| panic!("something else keeps it alive"), |line| line.capacity())
}

/// The lines that `chunks` make, each with the rest of the stream gone, and what the buffer keeps in the end.
fn decode_growing(chunks: &[&[u8]]) -> (Vec<Line>, usize) {
    let mut codec = LineCodec::default();
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    let mut lines = Vec::new();
    for chunk in chunks {
        for read in chunk.chunks(16 * 1024) {
            buffer.extend_from_slice(read);
            while let Some(line) = codec.decode(&mut buffer).unwrap() {
                lines.push(line);
            }
        }
    }
    (lines, buffer.capacity())
}

#[test]
fn a_small_line_behind_a_huge_one_does_not_keep_the_huge_buffer_alive() {
    const PING: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1}\n";
    let ended = |length: usize, byte| [vec![byte; length], b"\n".to_vec()].concat();
    let (huge, blank) = (ended(15 << 20, b'x'), ended(15 << 20, b' '));
    let (oversize, middle) = (ended(17 << 20, b'x'), ended(60 << 10, b'x'));
    for dropped in [&huge, &blank, &oversize, &middle] {
        let together = [dropped.as_slice(), PING].concat();
        for chunks in [[dropped.as_slice(), PING, PING], [PING, &together, PING]] {
            let (lines, kept) = decode_growing(&chunks);
            let small = |line: &Line| matches!(line, Line::Text(text) if text.len() == PING.len());
            let lines: Vec<Line> = lines.into_iter().filter(small).collect();
            assert!(lines.len() >= 2);
            for line in lines {
                let backing = backing(line);
                assert!(backing <= 64, "{} bytes keep {backing} alive", PING.len());
            }
            assert!(kept <= 256 << 10, "the buffer keeps {kept}");
        }
    }
}

#[test]
fn a_huge_line_keeps_little_more_than_itself_alive() {
    // All of it is there at once: many lines of a size that is not copied.
    let length = 100 << 10;
    let mut stream = Vec::new();
    for _ in 0..50 {
        stream.extend(std::iter::repeat_n(b'x', length));
        stream.push(b'\n');
    }
    let mut buffer = BytesMut::from(stream.as_slice());
    let mut codec = LineCodec::default();
    while let Some(line) = codec.decode(&mut buffer).unwrap() {
        let backing = backing(line);
        assert!(backing <= 2 * length + 16 * 1024, "{length} bytes keep {backing} alive");
    }
}

proptest! {
    #[test]
    fn any_chunking_of_a_stream_decodes_to_the_same_lines(
        stream in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(b' '), 1 => any::<u8>()], 0..200),
        cuts in proptest::collection::vec(0_usize..200, 0..20),
        limit in 1_usize..40,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        let whole = decode_whole(limit, &stream);
        prop_assert_eq!(decode(limit, chunks), whole);
    }
}

fn oversize(bytes: u64, head: &[u8]) -> Line {
    Line::Oversize { bytes, head: Bytes::copy_from_slice(head) }
}

/// What the codec should say, by the plainest means.
fn decode_whole(limit: usize, stream: &[u8]) -> Vec<Line> {
    stream
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| {
            let is_ended = line.ends_with(b"\n");
            let is_over = if is_ended { line.len() > limit } else { line.len() >= limit };
            let is_blank = line.trim_ascii().is_empty() && !line.contains(&0xc);
            match (is_ended, is_over) {
                (true, true) => oversize(line.len() as u64, &line[..limit.min(1024)]),
                (_, false) if is_blank => Line::Blank,
                (true, false) => Line::Text(Bytes::copy_from_slice(line)),
                (false, _) => Line::Unterminated(line.len() as u64),
            }
        })
        .collect()
}
