//! A strict reader of HTTP/1.1 answers (RFC 9112): what a lenient client forgives is an error here.

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names, in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// What follows the header section.
    pub body: Vec<u8>,
    /// The status line and the fields, as they came.
    pub head: Vec<u8>,
}

impl Response {
    /// The answer that `bytes` begin with, and where it ends; `None` if it is not complete. An
    /// answer to HEAD has the fields of a body, and no body (RFC 9110 §9.3.2).
    pub fn parse(bytes: &[u8], to_head: bool) -> Result<Option<(Response, usize)>, String> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            return match b"HTTP/1.1 ".starts_with(&bytes[..bytes.len().min(9)]) {
                true => Ok(None),
                false => Err("it does not begin with \"HTTP/1.1 \"".to_owned()),
            };
        };
        let head = &bytes[..end];
        let mut lines = head.split(|&byte| byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line
                .iter()
                .find(|&&byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
            {
                None => std::str::from_utf8(line).map_err(|_| "a line is not text".to_owned()),
                Some(byte) => Err(format!(
                    "a line has the control character {byte:#04x} in it"
                )),
            }
        });
        // Each line feed has its carriage return, or the two counts differ.
        let line_feeds = head.iter().filter(|&&byte| byte == b'\n').count();
        let line_ends = head.windows(2).filter(|window| window == b"\r\n").count();
        if line_feeds != line_ends {
            return Err("a line ends without a carriage return".to_owned());
        }
        let status = status(lines.next().ok_or("there is no status line")??)?;
        let fields = lines
            .map(|line| field(line?))
            .collect::<Result<Vec<_>, _>>()?;
        let end = end + END.len();
        let length = content_length(&fields, status)?;
        let length = if to_head { 0 } else { length };
        let Some(body) = bytes.get(end..end + length) else {
            return Ok(None);
        };
        let response = Response {
            status,
            fields,
            body: body.to_vec(),
            head: head.to_vec(),
        };
        Ok(Some((response, end + length)))
    }

    /// The value of a field, given by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// Whether the server says that the connection ends after this answer.
    pub fn says_close(&self) -> bool {
        self.field("connection").is_some_and(|value| {
            value
                .split(',')
                .any(|option| option.trim().eq_ignore_ascii_case("close"))
        })
    }
}

/// `HTTP/1.1 200 OK`.
fn status(line: &str) -> Result<u16, String> {
    let wrong = || format!("\"{line}\" is no status line");
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(wrong)?;
    let (code, phrase) = rest.split_once(' ').ok_or_else(wrong)?;
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let is_phrase = phrase
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    match code.parse() {
        Ok(status @ 100..600) if is_code && is_phrase => Ok(status),
        _ => Err(wrong()),
    }
}

/// `Content-Length: 5`.
fn field(line: &str) -> Result<(String, String), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && name.bytes().all(is_token) => Ok((
            name.to_ascii_lowercase(),
            value.trim_matches([' ', '\t']).to_owned(),
        )),
        _ => Err(format!("\"{line}\" is no header field")),
    }
}

/// How long the body is. These servers say so, and send no chunks.
fn content_length(fields: &[(String, String)], status: u16) -> Result<usize, String> {
    let mut lengths = fields.iter().filter(|(name, _)| name == "content-length");
    if fields.iter().any(|(name, _)| name == "transfer-encoding") {
        return Err("its length is in a Transfer-Encoding, and not in a Content-Length".to_owned());
    }
    match (lengths.next(), lengths.next()) {
        (Some(_), Some(_)) => Err("it has two Content-Length fields".to_owned()),
        (Some(_), None) if (100..200).contains(&status) || status == 204 => Err(format!(
            "an answer of {status} has no body and no Content-Length"
        )),
        (Some((_, length)), None)
            if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            length
                .parse()
                .map_err(|_| format!("nobody has {length} bytes"))
        }
        (Some((_, length)), None) => Err(format!("\"{length}\" is no length")),
        (None, _) if (100..200).contains(&status) || status == 204 => Ok(0),
        (None, _) => Err("it does not say how long its body is (Content-Length)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer_and_not_what_follows() {
        let bytes = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-length:  5 \r\nConnection: a, \
                      Close\r\n\r\nhelloHTTP/1.1 ";
        let (response, end) = Response::parse(bytes, false).unwrap().unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"hello"[..]));
        assert_eq!(&bytes[end..], b"HTTP/1.1 ");
        assert!(response.says_close());
        for cut in 0..end {
            assert_eq!(
                Response::parse(&bytes[..cut], false),
                Ok(None),
                "{cut} bytes"
            );
        }
        let (response, to_head) = Response::parse(bytes, true).unwrap().unwrap();
        assert_eq!((response.body.len(), to_head), (0, end - 5));
    }

    #[test]
    fn forgives_nothing() {
        for wrong in [
            "hello",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert!(
                Response::parse(wrong.as_bytes(), false).is_err(),
                "{wrong:?}"
            );
        }
    }
}
