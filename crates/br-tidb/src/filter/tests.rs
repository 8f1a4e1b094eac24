use proptest::prelude::*;

use super::*;

fn no_files(path: &str) -> Result<String, String> {
    Err(format!("no file {path}"))
}

fn filter(rules: &[&str]) -> TableFilter {
    TableFilter::parse(rules, false, &mut no_files).unwrap()
}

fn error(rule: &str) -> String {
    TableFilter::parse(&["*.*", rule], false, &mut no_files)
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn the_last_rule_decides() {
    let rules = filter(&["shop.*", "!shop.log*", "shop.log_kept"]);
    assert!(rules.matches_table("shop", "orders"));
    assert!(!rules.matches_table("shop", "log_1"));
    assert!(rules.matches_table("shop", "log_kept"));
    assert!(!rules.matches_table("bank", "orders"));
    assert!(TableFilter::all().matches_table("x", "y"));
    assert!(!filter(&[]).matches_table("x", "y"));
}

#[test]
fn databases_match_if_a_table_could() {
    let rules = filter(&["*.*", "!mysql.*", "mysql.user", "!tmp.*", "!shop.log"]);
    assert!(rules.matches_db("shop"));
    assert!(rules.matches_db("mysql"));
    assert!(!rules.matches_db("tmp"));
    assert!(!filter(&["a.b"]).matches_db("b"));
}

#[test]
fn wildcards_quotes_and_expressions() {
    for (rule, db, table, expected) in [
        ("d?.t[0-9]", "db", "t7", true),
        ("d?.t[0-9]", "db", "tx", false),
        ("d?.t[!0-9]", "db", "tx", true),
        ("d.t[^a]", "d", "t^", true),
        ("d.t[\\]]", "d", "t]", true),
        ("a*.b", "a\nz", "b", true),
        ("\"we.ird\".`ta``ble`", "we.ird", "ta`ble", true),
        ("\"*\".x", "any", "x", false),
        ("a\\.b.c\\*", "a.b", "c*", true),
        ("/^db\\d+$/./t/", "db12", "at", true),
        ("/^db\\d+$/./t/", "db", "at", false),
        ("/a\\/b/.x", "a/b", "x", true),
        ("$_ü.表", "$_Ü", "表", true),
        ("d.t[α-ω]x", "d", "tβx", true),
        ("  shop.x\t", "shop", "x", true),
    ] {
        assert_eq!(filter(&[rule]).matches_table(db, table), expected, "{rule}");
    }
}

#[test]
fn case_matters_only_if_asked_for() {
    for rule in [
        "Shop.Orders",
        "\"Shop\".`Orders`",
        "/^Shop$/./^Orders$/",
        "S*.O?ders",
    ] {
        let exact = TableFilter::parse(&[rule], true, &mut no_files).unwrap();
        assert!(exact.matches_table("Shop", "Orders"), "{rule}");
        assert!(!exact.matches_table("shop", "orders"), "{rule}");
        assert!(filter(&[rule]).matches_table("shoP", "ordErs"), "{rule}");
    }
}

#[test]
fn files_have_one_rule_a_line() {
    let mut import = |path: &str| match path {
        "rules.txt" => Ok("# shop only\r\nshop.*\r\n\n!shop.log\n".to_owned()),
        "bad.txt" => Ok("a.b\n@more\n".to_owned()),
        other => no_files(other),
    };
    let rules = TableFilter::parse(&["@rules.txt"], false, &mut import).unwrap();
    assert!(rules.matches_table("shop", "x") && !rules.matches_table("shop", "log"));
    let nested = TableFilter::parse(&["@bad.txt"], false, &mut import)
        .err()
        .unwrap();
    assert_eq!(
        nested.to_string(),
        "line 2 of bad.txt: filter rule \"@more\": a file of rules cannot name another one"
    );
    assert_eq!(
        error("@gone"),
        "--filter 2: filter rule \"@gone\": the file cannot be read: no file gone"
    );
}

#[test]
fn errors_name_rule_and_place() {
    for (rule, problem) in [
        (
            "shop",
            "a dot between database and table is missing (character 5)",
        ),
        ("shop.", "a pattern is missing (character 6)"),
        (
            "a.b.c",
            "something follows the pattern of the table (character 4)",
        ),
        (
            "a-b.c",
            "'-' has to be quoted or follow a backslash (character 2)",
        ),
        (
            "a.\"b",
            "the quoted name is empty or has no end (character 3)",
        ),
        (
            "a.\"\"",
            "the quoted name is empty or has no end (character 3)",
        ),
        ("/a.b", "the regular expression has no end (character 1)"),
        (
            "a.[]",
            "the character class is empty or has no end (character 3)",
        ),
        (
            "ü.\\n",
            "a letter or digit cannot follow a backslash (character 3)",
        ),
        (
            "a.b\\",
            "a backslash cannot be the last character (character 4)",
        ),
    ] {
        assert_eq!(
            error(rule),
            format!("--filter 2: filter rule {rule:?}: {problem}")
        );
    }
    assert!(error("/(/.x").contains("the regular expression is not valid: unclosed group"));
}

proptest! {
    #[test]
    fn rules_never_panic(rule: String, noise in "[!@/\"`\\\\.*?\\[\\]a-]{0,12}") {
        for rule in [rule, noise] {
            if let Ok(rules) = TableFilter::parse(&[&rule], false, &mut no_files) {
                rules.matches_table(&rule, &rule);
                rules.matches_db(&rule);
            }
        }
    }

    #[test]
    fn quoted_names_match_themselves(db in "[^\u{0}]{1,8}", table in "[^\u{0}]{1,8}") {
        let rule = format!("`{}`.\"{}\"", db.replace('`', "``"), table.replace('"', "\"\""));
        let rules = TableFilter::parse(&[&rule], true, &mut no_files).unwrap();
        prop_assert!(rules.matches_table(&db, &table), "{}", rule);
    }
}
