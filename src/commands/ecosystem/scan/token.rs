//! Splits a text in JavaScript, TypeScript or JSON into tokens, without comments. It must never reject a text (a
//! damaged one yields odd tokens), nor take more than linear time, because the text may be hostile.

/// Words after which a slash begins a regular expression. After any other word it is a division.
const VALUE_KEYWORDS: [&str; 8] = ["return", "typeof", "case", "in", "of", "throw", "await", "yield"];

pub(super) enum Token<'t> {
    /// A name, a keyword, a number or a regular expression, as written.
    Word(&'t str),
    /// The value of a string literal.
    Text(String),
    /// Any other character outside of white space and comments.
    Mark(char),
}

pub(super) fn tokenize(text: &str) -> Vec<Token<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tokenizer = Tokenizer { text, at: 0, tokens: Vec::new(), templates: Vec::new(), divisions: 0 };
    if text.starts_with("#!") {
        tokenizer.skip_line();
    }
    while let Some(first) = tokenizer.next() {
        tokenizer.take(first);
    }
    tokenizer.tokens
}

/// Each `take_` method continues after the character that was read last.
struct Tokenizer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token<'t>>,
    /// For each open `${`, the number of braces open in it.
    templates: Vec<usize>,
    /// A search for the end of a regular expression has failed up to here, so every slash before it is a division.
    divisions: usize,
}

impl<'t> Tokenizer<'t> {
    fn take(&mut self, first: char) {
        match first {
            '\'' | '"' => self.take_string(first),
            '`' => self.take_template(true),
            '/' => self.take_slash(),
            _ if is_word_char(first) => {
                let start = self.at - first.len_utf8();
                let rest = self.rest();
                self.at += rest.find(|next| !is_word_char(next)).unwrap_or(rest.len());
                self.tokens.push(Token::Word(&self.text[start..self.at]));
            }
            _ if first.is_whitespace() => {}
            '}' if self.templates.pop_if(|braces| *braces == 0).is_some() => {
                self.tokens.extend([Token::Mark(')'), Token::Mark('+')]);
                self.take_template(false);
            }
            mark => {
                if let Some(braces) = self.templates.last_mut() {
                    *braces = *braces + usize::from(mark == '{') - usize::from(mark == '}');
                }
                self.tokens.push(Token::Mark(mark));
            }
        }
    }

    fn take_string(&mut self, quote: char) {
        let mut units = Vec::new();
        while let Some(next) = self.next() {
            match next {
                '\\' => self.take_escape(&mut units),
                '\n' | '\r' => break,
                _ if next == quote => return self.push_text(&units),
                _ => push_code(&mut units, next.into()),
            }
        }
        // The line ends before the string: the file is damaged, or the quote is part of something else.
        self.tokens.push(Token::Mark(quote));
    }

    /// A template up to its end or its next `${`. `a${b}c` yields the tokens of `("a" + (b) + "c")`.
    fn take_template(&mut self, begins: bool) {
        let mut units = Vec::new();
        while let Some(next) = self.next() {
            match next {
                '\\' => self.take_escape(&mut units),
                '`' => {
                    self.push_text(&units);
                    self.tokens.extend((!begins).then_some(Token::Mark(')')));
                    return;
                }
                '$' if self.rest().starts_with('{') => {
                    self.at += 1;
                    self.tokens.extend(begins.then_some(Token::Mark('(')));
                    self.push_text(&units);
                    self.tokens.extend([Token::Mark('+'), Token::Mark('(')]);
                    self.templates.push(0);
                    return;
                }
                _ => push_code(&mut units, next.into()),
            }
        }
    }

    fn take_escape(&mut self, units: &mut Vec<u16>) {
        let Some(next) = self.next() else { return };
        let code = match next {
            '\r' if self.rest().starts_with('\n') => return self.at += 1,
            '\r' | '\n' | '\u{2028}' | '\u{2029}' => return,
            'n' => '\n'.into(),
            'r' => '\r'.into(),
            't' => '\t'.into(),
            'b' => 0x08,
            'v' => 0x0b,
            'f' => 0x0c,
            '0' => 0,
            'x' => self.take_hex(2),
            'u' if self.rest().starts_with('{') => {
                self.at += 1;
                let code = self.take_hex(6);
                self.at += usize::from(self.rest().starts_with('}'));
                code
            }
            'u' => self.take_hex(4),
            other => other.into(),
        };
        push_code(units, code);
    }

    /// The value of up to `longest` hexadecimal digits; the replacement character if there are none.
    fn take_hex(&mut self, longest: usize) -> u32 {
        let rest = self.rest();
        let count = rest.bytes().take(longest).take_while(u8::is_ascii_hexdigit).count();
        self.at += count;
        u32::from_str_radix(&rest[..count], 16).unwrap_or(char::REPLACEMENT_CHARACTER.into())
    }

    fn take_slash(&mut self) {
        let rest = self.rest();
        if rest.starts_with('/') {
            self.skip_line();
        } else if let Some(comment) = rest.strip_prefix('*') {
            self.at = comment.find("*/").map_or(self.text.len(), |end| self.at + 1 + end + 2);
        } else if self.at <= self.divisions || !self.expects_value() || !self.take_regex() {
            self.tokens.push(Token::Mark('/'));
        }
    }

    fn expects_value(&self) -> bool {
        match self.tokens.last() {
            None => true,
            Some(Token::Word(word)) => VALUE_KEYWORDS.contains(word),
            Some(Token::Text(_)) => false,
            Some(Token::Mark(mark)) => !matches!(mark, ')' | ']'),
        }
    }

    /// False if the line ends before the regular expression.
    fn take_regex(&mut self) -> bool {
        let (mut in_class, mut escaped) = (false, false);
        for (index, next) in self.rest().char_indices() {
            match next {
                '\n' | '\r' => {
                    self.divisions = self.at + index;
                    return false;
                }
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => {
                    self.tokens.push(Token::Word(&self.text[self.at - 1..=self.at + index]));
                    self.at += index + 1;
                    return true;
                }
                _ => {}
            }
        }
        self.divisions = self.text.len();
        false
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
    }

    fn push_text(&mut self, units: &[u16]) {
        self.tokens.push(Token::Text(String::from_utf16_lossy(units)));
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

fn is_word_char(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

/// Texts are collected in UTF-16, because a character may be written as two escapes: `\ud83d\ude00`.
fn push_code(units: &mut Vec<u16>, code: u32) {
    match u16::try_from(code) {
        Ok(unit) => units.push(unit),
        Err(_) => {
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        }
    }
}
