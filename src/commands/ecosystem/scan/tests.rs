//! Tests of the parser of ecosystem files. They must touch no file.

use super::{AppEntry, Value, parse_entries};

const REAL: &str = r#"#!/usr/bin/env node
// @ts-check
const path = require('path');
const { readFileSync } = require("fs");

/* The shop.
 * { name: 'commented', script: 'out.js' }
 */
const base = {
  exec_mode: 'cluster',
  instances: process.env.N || 2,
  max_memory_restart: '300M', // not more
  env: { NODE_ENV: 'development', name: 'none', nested: { name: 'none' } },
};
const ports = [3000, 3_001, 0xff, 1e-3, .5];
const clean = (text) => text.replace(/['"`{/]+/g, '').split(/\s*\/\s*/);
function log(level = 'info') {
  if (level !== 'info' && /^(warn|err)$/i.test(level)) { return `${level}: ${ports.map((p) => `<${p}>`).join(', ')}`; }
  return { level };
}

module.exports = {
  apps: [
    {
      ...base,
      name: "shop-api",
      script: './dist/main.js',
      cwd: path.join(__dirname, 'packages', "api"),
      args: ['--url', 'http://localhost:3000/?q={}'],
      env_production: { NODE_ENV: "production", name: 'none' },
      env_staging: Object.assign({}, base.env, { name: 'none' }),
    },
    {
      name: `caf\u00e9 ☕`,
      script: `${__dirname}/worker.js`,
      cwd: __dirname,
      instances: ports.length / 2,
      log_date_format: 'YYYY-MM-DD HH:mm Z',
      get watch() { return [1, 2].includes(ports[0] / 2); },
      onExit(code) { log(code); },
      [clean('x')]: true,
    },
    process.env.MAIL ? { 'name': 'mail', 'script': 'npm', 'args': 'run "mail"' } : null,
    ...['a', 'b'].map((queue) => ({
      name: `queue-${queue}`,
      script: 'queue.js',
    })),
  ].filter(Boolean),
  deploy: {
    production: {
      user: 'node',
      name: 'no process',
      host: ['192.168.0.13'],
      ref: 'origin/main',
      repo: 'git@github.com:me/shop.git',
      path: '/var/www/shop',
      'post-deploy': 'npm ci && pm2 reload ecosystem.config.js --env production',
    },
  },
};
"#;

/// `name`, or `name script=… cwd=… env=…`; texts are quoted, paths below the folder begin with `~`.
fn summarize(entry: &AppEntry) -> String {
    let show = |key: &str, value: &Option<Value>| match value {
        None => String::new(),
        Some(Value::Text(text)) => format!(" {key}={text:?}"),
        Some(Value::Below(path)) => format!(" {key}=~{path}"),
        Some(Value::Computed) => format!(" {key}=?"),
    };
    let environments = entry.environments.iter().map(|environment| format!(" env={environment}"));
    let values = show("script", &entry.script) + &show("cwd", &entry.cwd);
    entry.name.clone() + &values + &environments.collect::<String>()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = parse_entries(text).iter().map(summarize).collect();
    assert_eq!(found, expected, "{text}");
}

#[track_caller]
fn check_value(value: &str, expected: &str) {
    check(&format!("[{{ name: 'a', script: {value}, watch: true }}]"), &[&format!("a script={expected}")]);
    check(&format!("[{{ script: {value} , name: 'a' }}]"), &[&format!("a script={expected}")]);
    check(&format!("[{{ name: 'a', script: {value}\n}}]"), &[&format!("a script={expected}")]);
}

#[test]
fn a_real_file_is_parsed() {
    let expected = [
        r#"shop-api script="./dist/main.js" cwd=~packages/api env=production env=staging"#,
        "café ☕ script=~worker.js cwd=~",
        r#"mail script="npm""#,
    ];
    check(REAL, &expected);
    check(&REAL.replace('\n', "\r\n"), &expected);
    check(&format!("\u{feff}{REAL}"), &expected);
}

#[test]
fn objects_with_a_literal_name_are_entries() {
    check("", &[]);
    check("module.exports = {}", &[]);
    check("module.exports = { apps: [{ name: 'a', script: 'b' }] }", &[r#"a script="b""#]);
    check("export default { apps: [{ name: 'a', script: 'b', }, ], };", &[r#"a script="b""#]);
    check(r#"{"apps": [{"name": "a", "script": "b", "cwd": "/c"}]}"#, &[r#"a script="b" cwd="/c""#]);
    check(r#"[{"name": "a"}, {'name': 'b'}, {name: `c`}]"#, &["a", "b", "c"]);
    check("// JSON5\n{apps: [{name: 'a', instances: +2, script: 'b' /* last */,},],}", &[r#"a script="b""#]);
    check(
        "[{ name: 'a' + \"b\" }, { name: ('c') }, { name: x }, { name: 1 }, { name: null }, { name: f('d') }]",
        &["ab", "c"],
    );
    check(
        "[{ name: `a${1}` }, { name: `a${b}` }, { name: 'a'.trim() }, { name: b + 'a' }, { name: c ? 'a' : 'b' }]",
        &[],
    );
    check("[{ namespace: 'a', username: 'b', 'full-name': 'c', Name: 'd', $name: 'e' }, { x: name, y: 'name' }]", &[]);
    check("[{ ['name']: 'a' }, { x: ['name', 'b'] }, { x: (name, 'c') }, { x: y.name }]", &[]);
    check("[{ name: 'a', name: 'b', script: '1', script: '2' }]", &[r#"b script="2""#]);
    check("[{ name: 'a', name: b }, { name: 'a', name }, { name: 'a', name() {} }, { name: 'a', get name() {} }]", &[]);
    check("const app = { name: 'a' };\nif (x) { apps.push({ name: 'b', script: x }) }", &["a", "b script=?"]);
    check(
        "const apps: { name: string; script?: string }[] = [{ name: 'a' as const, cwd: '/' } satisfies App]",
        &[r#"a cwd="/""#],
    );
}

#[test]
fn only_direct_keys_count() {
    check("[{ name: 'a', x: { script: 'b', cwd: 'c', env_d: {} }, y: [{ script: 'b' }] }]", &["a"]);
    check("[{ x: { name: 'inner', cwd: 'c' }, name: 'outer' }]", &["outer", r#"inner cwd="c""#]);
    check("[{ ...base, name: 'a', ...(b ? { script: 'c' } : {}), ...{ cwd: 'd' } }]", &["a"]);
    check(
        "[{ name: 'a', script, cwd }, { cwd() {}, name: 'b', get script() { return 'x' } }]",
        &["a script=? cwd=?", "b script=? cwd=?"],
    );
    check("[{ name: 'a', async script() {}, get: 'x', async: 1, set cwd(x) {} }]", &["a script=?"]);
    check("[{ wait: (a, b) => a, name: 'a', hook: async function (c, d) { e(f, g) }, cwd: '/' }]", &[r#"a cwd="/""#]);
}

#[test]
fn environments_are_listed_and_deployments_are_skipped() {
    check(
        "[{ env_b: {}, 'env_a': f(), env: {}, name: 'a', env_: {}, env_b: { X: 1 }, environment_c: {} }]",
        &["a env=b env=a"],
    );
    check(
        "[{ name: 'a', env: { name: 'b', x: [{ name: 'c' }] }, env_x: y ? { name: 'd' } : { name: 'e' } }]",
        &["a env=x"],
    );
    check("({ deploy: { production: { name: 'a', hosts: [{ name: 'b' }] } }, apps: [{ name: 'c' }] })", &["c"]);
    check("function env_f() {}\n{ env(x); apps.push({ name: 'a' }) }", &["a"]);
}

/// Values that only running the file could tell.
const COMPUTED: [&str; 49] = [
    "a",
    "1",
    "true",
    "null",
    "[]",
    "{}",
    "['a']",
    "f('a')",
    "'a'.b",
    "'a'[0]",
    "'a' + b",
    "'a' + 1",
    "'a' || 'b'",
    "a ?? 'b'",
    "a ? 'b' : 'c'",
    "-'a'",
    "!'a'",
    "'a' * 2",
    "('a', 'b')",
    "`a${b}`",
    "`${a}/b`",
    "String.raw`a`",
    "process.cwd()",
    "process.cwd() + '/a'",
    "require.resolve('a')",
    "/a/",
    "/__dirname/",
    "() => 'a'",
    "__dirname + 'a'",
    "__dirname.x",
    "'a' + __dirname",
    "__dirname + a",
    "`${__dirname}a`",
    "__dirname + '/a' + 'b'",
    "path.join(__dirname, a)",
    "path.join('a', 'b')",
    "path.resolve('a')",
    "path.resolve(__dirname, '/a')",
    "path.join(__dirname, '') + 'a'",
    "path.resolve(__dirname, 'a/') + 'b'",
    "path.dirname(__dirname)",
    "path.sep",
    "my.path.join(__dirname, 'a')",
    "path.join(__dirname, 'a').b",
    "import.meta.url",
    "import('a')",
    "function () { return 'a' }",
    "class { a = 'b' }",
    "new A('a')",
];

#[test]
fn values_are_read_or_computed() {
    check_value("'a.js'", r#""a.js""#);
    check_value("`a.js`", r#""a.js""#);
    check_value("'a' + \"b\" + (`c`)", r#""abc""#);
    check_value("((('a' + ('b'))))", r#""ab""#);
    check_value("'http://x/*' /* 'c' */ // , 'd'\n", r#""http://x/*""#);
    check_value("__dirname", "~");
    check_value("import.meta.dirname", "~");
    check_value("__dirname + '/a/b.js'", "~a/b.js");
    check_value("__dirname + '/' + 'a/'", "~a");
    check_value("path.join(__dirname, 'a', './b', '..', '', 'c')", "~a/b/../c");
    check_value("path.join(\n  __dirname,\n  '../a',\n)", "~../a");
    check_value("path.join(import.meta.dirname, '/a')", "~a");
    check_value("path.resolve(__dirname)", "~");
    check_value("path.resolve(path.join(__dirname, 'a'), `b`) + '/c'", "~a/b/c");
    check_value("`${__dirname}`", "~");
    check_value("`${__dirname}/a/b.js`", "~a/b.js");
    check_value("`${path.join(__dirname, `a`)}/${'b'}`", "~a/b");
    COMPUTED.into_iter().for_each(|value| check_value(value, "?"));
}

#[test]
fn escapes_are_decoded() {
    check_value(r#"'\'\"\\\n\t\q'"#, r#""'\"\\\n\tq""#);
    check_value(r"'\x41\u00e9\u{1f600}\ud83d\ude00'", r#""Aé😀😀""#);
    check_value("'a\\\nb\\\r\nc'", r#""abc""#);
    check_value(r"`\`\${a}$b$`", r#""`${a}$b$""#);
    check_value(r"'\xz\u{zz}\u{110000}\ud83d'", "\"\u{fffd}z\u{fffd}zz}\u{fffd}\u{fffd}\"");
}

#[test]
fn strings_comments_and_regular_expressions_hide_brackets() {
    check("// { name: 'a' }\n/* { name: 'b' } */ /** **/ [{ /* name: 'c', */ name: /* */ 'd' }]", &["d"]);
    check("f('{ name: \"a\" }', \"// '\", `{ name: 'b' } /* `); [{ name: 'c' }]", &["c"]);
    check("[{ a: /'/, b: /[/'\"]{/g, c: x => /`/, d: f(/\\/'/), e: !/'/.test(y), name: 'a' }]", &["a"]);
    check("function f() { return /[']/ }\n/'/.test(x); [{ name: 'a' }]", &["a"]);
    check("[{ a: b / 2, c: '/', d: (1 + 2) / 3, e: f[0] / 4 /* ' */, g: `h` / 5, i: '/', name: 'a' }]", &["a"]);
    check("[{ a: `${b} ${`{${{ c: `}` }}`} '`, name: 'a' }]", &["a"]);
    check("[{ a: `${[{ name: 'b' }].map((x) => x.name)}`, name: 'c' }]", &["c", "b"]);
}

#[test]
fn damaged_files_yield_their_complete_entries() {
    check("[{ name: 'a' }, { name: 'b'", &["a"]);
    check("[{ name: 'a', x: [ }, { name: 'b' }]", &["b"]);
    check("}])} [{ name: 'a' }", &["a"]);
    check("[{ name: 'a' }, { name: 'b, script: 'c' },\n { name: 'd' }]", &["a", "d"]);
    check("[{ name: 'a' }, `${ {", &["a"]);
    check("[{ name: 'a' }, /* { name: 'b' }", &["a"]);
    check("[{ name: 'a' }, { name: '\\", &["a"]);
    check(&format!("{}{{ name: 'a' }}{}", "[".repeat(99), "]".repeat(99)), &["a"]);
    check(&format!("{}{{ name: 'a' }}{}{{ name: 'b' }}", "[".repeat(100), "]".repeat(100)), &["b"]);
    check_value(&format!("{}'a'{}", "(".repeat(101), ")".repeat(101)), "?");
}

#[test]
fn no_damage_causes_a_panic() {
    REAL.char_indices().for_each(|(end, _)| assert!(parse_entries(&REAL[..end]).len() <= 3));
    let mut seed = 1_u32;
    let mut roll = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    let odd = b"'\"`/\\{}[]()$:,+*\n\xff";
    for _ in 0..2000 {
        let mut bytes = REAL.as_bytes().to_vec();
        for _ in 0..=roll(4) {
            let at = roll(bytes.len());
            bytes[at] = if roll(4) == 0 { roll(256) as u8 } else { odd[roll(odd.len())] };
        }
        assert!(parse_entries(&String::from_utf8_lossy(&bytes)).len() < 10);
    }
}

/// Quadratic work would not end here.
#[test]
fn a_long_file_takes_linear_time() {
    let parts = [
        "{",
        "[",
        "(",
        "}",
        "'",
        "\"",
        "`",
        "`${",
        "/",
        "=/[",
        "=/a/",
        "/*",
        "//",
        "\\",
        "{name:(",
        "'\\u{",
        "''+",
        "a,",
        "{name:",
        "{a:'b'},",
        "{name:path.join(",
        "get ",
        "{env_a:",
        ")`${}",
        "${",
        "é",
    ];
    for part in parts {
        for start in ["", "{name:'a',script:", "[{name:'a',", "`", "a = "] {
            let text = start.to_owned() + &part.repeat((1 << 20) / part.len());
            assert!(parse_entries(&text).len() <= 1, "{start}{part}");
        }
    }
    let environments: String = (0..100_000).map(|number| format!("env_{number}:1,")).collect();
    assert_eq!(parse_entries(&format!("{{name:'a',{environments}}}"))[0].environments.len(), 100_000);
}
