//! Tokens to a tree: precedence climbing, with macros expanded on the way.
//!
//! Grammar: the CEL language definition; places of nodes as in cel-go, which
//! error messages show.

use std::sync::Arc;

use crate::ast::{Entry, Expr, FieldInit, Item, Kind};
use crate::error::{CompileError, Issue};
use crate::lex::{Token, TokenKind, tokens};
use crate::limits::{MAX_DEPTH, MAX_EXPRESSION_CHARS, MAX_NESTING};
use crate::macros;
use crate::value::{Text, Value};

/// Words that cannot be names.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Binary operators by precedence, loosest first.
const LEVELS: &[&[&str]] =
    &[&["||"], &["&&"], &["==", "!=", "<", "<=", ">", ">=", "in"], &["+", "-"], &["*", "/", "%"]];

/// What starts an expression, as the message for a missing one lists it.
const EXPECTED: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

pub(crate) type Parsed<T> = Result<T, Issue>;

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Result<(Expr, u32), CompileError> {
    let length = text.chars().count();
    if length > MAX_EXPRESSION_CHARS {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_EXPRESSION_CHARS}");
        return Err(CompileError::new(text, vec![Issue { at: 0, message }]));
    }
    let run = || {
        let mut parser = Parser { tokens: tokens(text)?, next: 0, ids: 0, nesting: 0 };
        let expr = parser.expr()?;
        let rest = parser.peek();
        if !matches!(rest.kind, TokenKind::End) {
            let message = format!("Syntax error: mismatched input '{}' expecting <EOF>", rest.text);
            return Err(Issue { at: rest.at, message });
        }
        Ok((expr, parser.ids))
    };
    run().map_err(|issue| CompileError::new(text, vec![issue]))
}

pub(crate) struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    ids: u32,
    nesting: u16,
}

fn too_deep(at: u32) -> Issue {
    Issue { at, message: format!("expression recursion limit exceeded: {MAX_DEPTH}") }
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &Token<'t> {
        // The last token is the end, and is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek().clone();
        if !matches!(token.kind, TokenKind::End) {
            self.next += 1;
        }
        token
    }

    fn at_punct(&self, text: &str) -> bool {
        let token = self.peek();
        matches!(token.kind, TokenKind::Punct) && token.text == text
    }

    fn accept(&mut self, text: &str) -> Option<u32> {
        self.at_punct(text).then(|| self.take().at)
    }

    fn expect(&mut self, text: &str) -> Parsed<u32> {
        self.accept(text).ok_or_else(|| self.unexpected(&format!("'{text}'")))
    }

    fn unexpected(&self, expecting: &str) -> Issue {
        let token = self.peek();
        Issue {
            at: token.at,
            message: format!("Syntax error: mismatched input '{}' expecting {expecting}", token.text),
        }
    }

    /// Makes a node over its parts, unless it is too deep.
    pub(crate) fn node(&mut self, at: u32, kind: Kind) -> Parsed<Expr> {
        let below = match &kind {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.depth,
            Kind::Call { target, args, .. } => {
                args.iter().map(|arg| arg.depth).chain(target.iter().map(|target| target.depth)).max().unwrap_or(0)
            }
            Kind::List(items) => items.iter().map(|item| item.value.depth).max().unwrap_or(0),
            Kind::Map(entries) => entries.iter().map(|e| e.key.depth.max(e.value.depth)).max().unwrap_or(0),
            Kind::Struct { fields, .. } => fields.iter().map(|field| field.value.depth).max().unwrap_or(0),
            Kind::Comprehension(c) => c.range.depth.max(c.body.depth).max(c.filter.as_ref().map_or(0, |f| f.depth)),
            Kind::OptMap { target, body, .. } => target.depth.max(body.depth),
        };
        if below >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.ids += 1;
        Ok(Expr { id: self.ids, at, depth: below + 1, kind })
    }

    fn call(&mut self, at: u32, function: &str, args: Vec<Expr>) -> Parsed<Expr> {
        self.node(at, Kind::Call { function: Arc::from(function), target: None, args })
    }

    fn expr(&mut self) -> Parsed<Expr> {
        if self.nesting >= MAX_NESTING {
            return Err(too_deep(self.peek().at));
        }
        self.nesting += 1;
        let condition = self.binary(0)?;
        let result = match self.accept("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.expect(":")?;
                let no = self.expr()?;
                self.call(at, "_?_:_", vec![condition, yes, no])?
            }
        };
        self.nesting -= 1;
        Ok(result)
    }

    /// The binary operator that comes next, and how tightly it binds.
    fn operator(&self) -> Option<(usize, &'static str)> {
        let token = self.peek();
        let word = matches!(token.kind, TokenKind::Ident) && token.text == "in";
        if !word && !matches!(token.kind, TokenKind::Punct) {
            return None;
        }
        LEVELS.iter().enumerate().find_map(|(level, operators)| {
            operators.iter().copied().find(|operator| *operator == token.text).map(|operator| (level, operator))
        })
    }

    /// Operands joined by operators that bind at least as tightly as a level.
    fn binary(&mut self, least: usize) -> Parsed<Expr> {
        let mut left = self.unary()?;
        while let Some((level, operator)) = self.operator().filter(|(level, _)| *level >= least) {
            if level < 2 {
                left = self.logical(level, left)?;
                continue;
            }
            let at = self.take().at;
            let right = self.binary(level + 1)?;
            let name = if operator == "in" { "@in".to_owned() } else { format!("_{operator}_") };
            left = self.call(at, &name, vec![left, right])?;
        }
        Ok(left)
    }

    /// Chains of `&&` and `||` become balanced trees, so that long ones are
    /// not deep.
    fn logical(&mut self, level: usize, first: Expr) -> Parsed<Expr> {
        let mut terms = vec![first];
        let mut places = Vec::new();
        while self.operator().is_some_and(|(next, _)| next == level) {
            places.push(self.take().at);
            terms.push(self.binary(level + 1)?);
        }
        let name = if level == 0 { "_||_" } else { "_&&_" };
        let mut terms: Vec<Option<Expr>> = terms.into_iter().map(Some).collect();
        self.balance(name, &mut terms, &places)
    }

    fn balance(&mut self, name: &str, terms: &mut [Option<Expr>], places: &[u32]) -> Parsed<Expr> {
        if let [term] = terms {
            return Ok(term.take().expect("each term is taken once"));
        }
        let middle = places.len() / 2;
        let (low, high) = terms.split_at_mut(middle + 1);
        let left = self.balance(name, low, &places[..middle])?;
        let right = self.balance(name, high, &places[middle + 1..])?;
        self.call(places[middle], name, vec![left, right])
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let (mut count, start) = (0u32, self.peek().at);
        let operator = if self.at_punct("!") { "!" } else { "-" };
        let mut last = start;
        while let Some(at) = self.accept(operator) {
            count += 1;
            last = at;
        }
        let mut operand = None;
        if operator == "-" && count > 0 {
            let token = self.peek().clone();
            let negative = match &token.kind {
                TokenKind::Literal(Value::Int(number)) => Some(Value::Int(-number)),
                TokenKind::Literal(Value::Double(number)) => Some(Value::Double(-number)),
                TokenKind::Smallest => Some(Value::Int(i64::MIN)),
                _ => None,
            };
            if let Some(value) = negative {
                self.take();
                count -= 1;
                let literal = self.node(last, Kind::Literal(value))?;
                operand = Some(self.members(literal)?);
            }
        }
        let operand = match operand {
            Some(operand) => operand,
            None => {
                let primary = self.primary()?;
                self.members(primary)?
            }
        };
        if count.is_multiple_of(2) {
            return Ok(operand);
        }
        self.call(start, if operator == "!" { "!_" } else { "-_" }, vec![operand])
    }

    /// Selections, indices and calls after an operand.
    fn members(&mut self, mut operand: Expr) -> Parsed<Expr> {
        loop {
            if let Some(at) = self.accept(".") {
                let field = self.field_name()?;
                if let Some(open) = self.accept("(") {
                    let args = self.arguments()?;
                    operand = self.member_call(open, field, operand, args)?;
                } else {
                    operand = self.node(at, Kind::Select { operand: Box::new(operand), field, test: false })?;
                }
            } else if let Some(at) = self.accept(".?") {
                let field = self.field_name()?;
                let literal = self.node(at, Kind::Literal(Value::String(Text::from(field))))?;
                operand = self.call(at, "_?._", vec![operand, literal])?;
            } else if let Some(at) = self.accept("[") {
                operand = self.index(at, "_[_]", operand)?;
            } else if let Some(at) = self.accept("[?") {
                operand = self.index(at, "_[?_]", operand)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn index(&mut self, at: u32, name: &str, operand: Expr) -> Parsed<Expr> {
        let index = self.expr()?;
        self.expect("]")?;
        self.call(at, name, vec![operand, index])
    }

    fn field_name(&mut self) -> Parsed<Arc<str>> {
        let token = self.peek();
        if !matches!(token.kind, TokenKind::Ident) || matches!(token.text, "in" | "true" | "false" | "null") {
            return Err(self.unexpected("IDENTIFIER"));
        }
        Ok(Arc::from(self.take().text))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.accept(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.accept(")").is_some() {
                return Ok(args);
            }
            if self.accept(",").is_none() {
                return Err(self.unexpected("{',', ')'}"));
            }
        }
    }

    fn member_call(&mut self, at: u32, function: Arc<str>, target: Expr, args: Vec<Expr>) -> Parsed<Expr> {
        match macros::expand_member(self, at, &function, target, args)? {
            macros::Expansion::Done(expr) => Ok(*expr),
            macros::Expansion::None(target, args) => self.node(at, Kind::Call { function, target: Some(target), args }),
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek().clone();
        match token.kind {
            TokenKind::Literal(value) => {
                self.take();
                self.node(token.at, Kind::Literal(value))
            }
            TokenKind::Smallest => Err(Issue { at: token.at, message: "invalid int literal".to_owned() }),
            TokenKind::Ident => {
                let literal = match token.text {
                    "true" => Some(Value::Bool(true)),
                    "false" => Some(Value::Bool(false)),
                    "null" => Some(Value::Null),
                    _ => None,
                };
                if let Some(value) = literal {
                    self.take();
                    return self.node(token.at, Kind::Literal(value));
                }
                self.named(false)
            }
            TokenKind::Punct if token.text == "." => {
                self.take();
                self.named(true)
            }
            TokenKind::Punct if token.text == "(" => {
                self.take();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Punct if token.text == "[" => {
                self.take();
                self.list(token.at)
            }
            // `[?a]` is lexed as one bracket.
            TokenKind::Punct if token.text == "[?" => {
                self.take();
                self.list_items(token.at, true)
            }
            TokenKind::Punct if token.text == "{" => {
                self.take();
                self.map(token.at)
            }
            TokenKind::Punct | TokenKind::End => Err(self.unexpected(EXPECTED)),
        }
    }

    /// A name, a global call, or a struct.
    fn named(&mut self, absolute: bool) -> Parsed<Expr> {
        let token = self.peek().clone();
        if !matches!(token.kind, TokenKind::Ident) {
            return Err(self.unexpected("IDENTIFIER"));
        }
        if token.text == "in" {
            return Err(self.unexpected(EXPECTED));
        }
        self.take();
        let dot = if absolute { "." } else { "" };
        let name: Arc<str> = Arc::from(format!("{dot}{}", token.text));
        if let Some(open) = self.accept("(") {
            let args = self.arguments()?;
            if RESERVED.contains(&token.text) {
                return Err(Issue { at: token.at, message: format!("reserved identifier: {}", token.text) });
            }
            return match macros::expand_global(self, open, &name, args)? {
                macros::Expanded::Done(expr) => Ok(*expr),
                macros::Expanded::None(args) => self.node(open, Kind::Call { function: name, target: None, args }),
            };
        }
        if let Some(build) = self.struct_ahead() {
            return self.build_struct(&name, build);
        }
        if RESERVED.contains(&token.text) {
            return Err(Issue { at: token.at, message: format!("reserved identifier: {}", token.text) });
        }
        self.node(token.at, Kind::Ident(name))
    }

    /// How many `.name` stand before a `{`; a brace is only possible after a
    /// name.
    fn struct_ahead(&self) -> Option<usize> {
        let mut index = self.next;
        loop {
            let token = self.tokens.get(index)?;
            if !matches!(token.kind, TokenKind::Punct) {
                return None;
            }
            if token.text == "{" {
                return Some((index - self.next) / 2);
            }
            if token.text != "." || !matches!(self.tokens.get(index + 1)?.kind, TokenKind::Ident) {
                return None;
            }
            index += 2;
        }
    }

    fn build_struct(&mut self, first: &str, parts: usize) -> Parsed<Expr> {
        let mut name = first.to_owned();
        for _ in 0..parts {
            self.expect(".")?;
            name.push('.');
            name.push_str(self.take().text);
        }
        let at = self.expect("{")?;
        let mut fields = Vec::new();
        while self.accept("}").is_none() {
            let optional = self.accept("?").is_some();
            let name = self.field_name()?;
            let at = self.expect(":")?;
            let value = self.expr()?;
            fields.push(FieldInit { at, name, value, optional });
            if self.accept(",").is_none() && !self.at_punct("}") {
                return Err(self.unexpected("{'}', ','}"));
            }
        }
        self.node(at, Kind::Struct { name: Arc::from(name), fields })
    }

    fn list(&mut self, at: u32) -> Parsed<Expr> {
        if self.accept("]").is_some() {
            return self.node(at, Kind::List(Vec::new()));
        }
        // A lone comma is allowed in an empty list.
        if self.at_punct(",") {
            self.take();
            self.expect("]")?;
            return self.node(at, Kind::List(Vec::new()));
        }
        let optional = self.accept("?").is_some();
        self.list_items(at, optional)
    }

    fn list_items(&mut self, at: u32, optional: bool) -> Parsed<Expr> {
        let mut items = vec![Item { value: self.expr()?, optional }];
        loop {
            if self.accept("]").is_some() {
                break;
            }
            if self.accept(",").is_none() {
                return Err(self.unexpected("{']', ','}"));
            }
            if self.accept("]").is_some() {
                break;
            }
            let optional = self.accept("?").is_some();
            items.push(Item { value: self.expr()?, optional });
        }
        self.node(at, Kind::List(items))
    }

    fn map(&mut self, at: u32) -> Parsed<Expr> {
        let mut entries = Vec::new();
        if self.at_punct(",") {
            self.take();
            self.expect("}")?;
            return self.node(at, Kind::Map(entries));
        }
        while self.accept("}").is_none() {
            let optional = self.accept("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if self.accept(",").is_none() && !self.at_punct("}") {
                return Err(self.unexpected("{'}', ','}"));
            }
        }
        self.node(at, Kind::Map(entries))
    }
}
