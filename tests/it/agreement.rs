//! Template, sample events, binaries, routes and contract say the same.

use std::collections::BTreeSet;
use std::path::Path;

use serde_norway::Value;
use snapshot_service::http::ROUTES;

use crate::support::lambda::{FUNCTIONS, sample_event};

fn file_stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let matching = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    matching.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn yaml(name: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    serde_norway::from_str(&text).unwrap()
}

/// The template's resources of one type: name and resource.
fn resources<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let resources = resources.map(|(name, resource)| (name.as_str().unwrap(), resource));
    resources.filter(|(_, resource)| resource["Type"].as_str() == Some(kind)).collect()
}

fn functions(template: &Value) -> Vec<(&str, &Value)> {
    resources(template, "AWS::Serverless::Function")
}

fn binary(function: &Value) -> &str {
    function["Metadata"]["BuildProperties"]["Binary"].as_str().unwrap()
}

/// `get-snapshot` is `GetSnapshotFunction`.
fn resource_name(binary: &str) -> String {
    let words = binary.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.chain(["Function".to_owned()]).collect()
}

/// The method and path of each route in the template, with its function's binary.
fn template_routes(template: &Value) -> BTreeSet<(String, String, String)> {
    let mut routes = BTreeSet::new();
    for (_, function) in functions(template) {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Type"] == "HttpApi" {
                let text = |name: &str| event["Properties"][name].as_str().unwrap().to_owned();
                routes.insert((text("Method"), text("Path"), binary(function).to_owned()));
            }
        }
    }
    routes
}

#[test]
fn each_binary_has_a_function_and_a_sample_event_of_its_name_and_the_other_way_round() {
    let template = yaml("template.yaml");
    let binaries = file_stems("src/bin", "rs");
    assert_eq!(binaries, FUNCTIONS.map(str::to_owned).into());
    assert_eq!(file_stems("events", "json"), binaries);
    let built: BTreeSet<String> =
        functions(&template).iter().map(|(_, function)| binary(function).to_owned()).collect();
    assert_eq!(built, binaries);
    for (name, function) in functions(&template) {
        assert_eq!(name, resource_name(binary(function)));
        assert_eq!(function["Metadata"]["BuildMethod"], "rust-cargolambda");
    }
}

#[test]
fn the_template_and_the_contract_have_the_routes_of_the_handlers() {
    let routes = ROUTES.iter().map(|route| (route.method.into(), route.path.into(), route.function.into())).collect();
    assert_eq!(template_routes(&yaml("template.yaml")), routes);

    let contract = yaml("openapi.yaml");
    let paths = contract["paths"].as_mapping().unwrap().iter();
    let operations: BTreeSet<(String, String)> = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_mapping().unwrap().keys();
            methods.map(|method| (method.as_str().unwrap().to_uppercase(), path.as_str().unwrap().to_owned()))
        })
        .collect();
    assert_eq!(operations, routes.into_iter().map(|(method, path, _)| (method, path)).collect());
}

#[test]
fn each_sample_event_is_for_its_functions_route() {
    for route in ROUTES {
        let event: serde_json::Value = serde_json::from_str(&sample_event(route.function)).unwrap();
        assert_eq!(event["routeKey"], format!("{} {}", route.method, route.path));
        assert_eq!(event["requestContext"]["http"]["method"], route.method);
        let parameters = event["pathParameters"].as_object().into_iter().flatten();
        let path = parameters.fold(route.path.to_owned(), |path, (name, value)| {
            path.replace(&format!("{{{name}}}"), value.as_str().unwrap())
        });
        assert_eq!(event["rawPath"], path);
    }
}

fn auth(template: &mut Value) -> &mut Value {
    &mut template["Resources"]["SnapshotApi"]["Properties"]["Auth"]
}

/// Each way into a function that does not ask for what it must: whoever triggers has to sign (IAM), whoever reads may instead
/// show a token that the API checks.
fn open_ways(template: &Value) -> Vec<String> {
    let auth = &template["Resources"]["SnapshotApi"]["Properties"]["Auth"];
    let mut open = Vec::new();
    for (name, function) in functions(template) {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Type"] == "ScheduleV2" {
                continue;
            }
            let route = &event["Properties"];
            let ours = event["Type"] == "HttpApi"
                // Else SAM would put the route on an API of its own making, which asks for nothing.
                && matches!(&route["ApiId"], Value::Tagged(api) if api.tag == "!Ref" && api.value == "SnapshotApi");
            let own = &route["Auth"]["Authorizer"];
            let authorizer = if own.is_null() { &auth["DefaultAuthorizer"] } else { own };
            let is_asked_for = match authorizer.as_str() {
                Some("AWS_IAM") => auth["EnableIamAuthorizer"].as_bool() == Some(true),
                Some(token) => {
                    let issuer = &auth["Authorizers"][token]["JwtConfiguration"]["issuer"];
                    route["Method"].as_str() == Some("GET") && !issuer.is_null()
                }
                None => false,
            };
            if !(ours && is_asked_for) {
                open.push(format!("{name}: {:?} {:?}", route["Method"].as_str(), route["Path"].as_str()));
            }
        }
        if !function["Properties"]["FunctionUrlConfig"].is_null() {
            open.push(format!("{name} can be reached past the API"));
        }
    }
    open
}

#[test]
fn nobody_can_trigger_or_read_anything_without_a_signature() {
    let template = yaml("template.yaml");
    assert_eq!(open_ways(&template), Vec::<String>::new());
    let auth = &template["Resources"]["SnapshotApi"]["Properties"]["Auth"];
    assert_eq!(auth["DefaultAuthorizer"], "AWS_IAM");
}

#[test]
fn a_route_that_lacks_an_authorizer_is_noticed() {
    let open_after = |change: fn(&mut Value)| {
        let mut template = yaml("template.yaml");
        change(&mut template);
        open_ways(&template).len()
    };
    assert_eq!(open_after(|template| auth(template)["DefaultAuthorizer"] = Value::Null), ROUTES.len());
    assert_eq!(open_after(|template| auth(template)["EnableIamAuthorizer"] = Value::Null), ROUTES.len());
    assert_eq!(open_after(|template| auth(template)["DefaultAuthorizer"] = "NONE".into()), ROUTES.len());
    assert_eq!(open_after(|template| get_snapshot(template)["FunctionUrlConfig"]["AuthType"] = "NONE".into()), 1);
    for setting in ["ApiId", "Type"] {
        let mut template = yaml("template.yaml");
        let event = &mut get_snapshot(&mut template)["Events"]["Http"];
        let holder = if setting == "Type" { event } else { &mut event["Properties"] };
        holder[setting] = Value::Null;
        assert_eq!(open_ways(&template).len(), 1, "{setting}");
    }
    let mut template = yaml("template.yaml");
    get_snapshot(&mut template)["Events"]["Http"]["Properties"]["Auth"]["Authorizer"] = "NONE".into();
    assert_eq!(open_ways(&template).len(), 1);
}

fn get_snapshot(template: &mut Value) -> &mut Value {
    &mut template["Resources"]["GetSnapshotFunction"]["Properties"]
}

/// As docs/guides/deploying.md describes.
#[test]
fn a_route_that_reads_may_ask_for_a_token_and_one_that_triggers_may_not() {
    let open_with_token = |function: &str| {
        let mut template = yaml("template.yaml");
        auth(&mut template)["Authorizers"]["ReaderJwt"]["JwtConfiguration"]["issuer"] = "https://issuer.example".into();
        let event = &mut template["Resources"][function]["Properties"]["Events"]["Http"];
        event["Properties"]["Auth"]["Authorizer"] = "ReaderJwt".into();
        open_ways(&template).len()
    };
    assert_eq!(open_with_token("GetSnapshotFunction"), 0);
    assert_eq!(open_with_token("TriggerMaintenanceFunction"), 1);
}

#[test]
fn each_function_has_a_role_a_log_and_one_secret_and_no_others() {
    let template = yaml("template.yaml");
    for (name, function) in functions(&template) {
        let stem = name.strip_suffix("Function").unwrap();
        let binary = binary(function);
        let database_role = match binary {
            "migrate" => "Migrate",
            "run-maintenance" | "trigger-maintenance" => "Maintain",
            _ => "Read",
        };
        let properties = &function["Properties"];
        assert_eq!(properties["Role"].as_str().unwrap(), format!("{stem}Role.Arn"));
        let user = properties["Environment"]["Variables"]["PGUSER"].as_str().unwrap();
        assert_eq!(user, format!("{database_role}DatabaseUser"));
        let secret = properties["Environment"]["Variables"]["DATABASE_SECRET_ID"].as_str().unwrap();
        assert_eq!(secret, format!("{database_role}DatabaseSecretArn"));
        let role = &template["Resources"][format!("{stem}Role")]["Properties"];
        let policies = format!("{:?}", role["ManagedPolicyArns"]);
        for other in ["Read", "Maintain", "Migrate"] {
            let has = policies.contains(&format!("{other}DatabasePolicy"));
            assert_eq!(has, other == database_role, "{name} may read the secret {other}DatabaseSecretArn");
        }
        let log = properties["LoggingConfig"]["LogGroup"].as_str().unwrap();
        assert_eq!(log, format!("{stem}LogGroup"));
        let log_name = template["Resources"][log]["Properties"]["LogGroupName"].as_str().unwrap();
        assert!(log_name.ends_with(&format!("/{binary}")), "{name} logs to {log_name}");
        let own_log = role["Policies"][0]["PolicyDocument"]["Statement"][0]["Resource"].as_str().unwrap();
        assert_eq!(own_log, format!("{log}.Arn"));
    }
}

#[test]
fn no_function_connects_without_tls_or_with_a_password_in_a_variable() {
    let template = yaml("template.yaml");
    let variables = &template["Globals"]["Function"]["Environment"]["Variables"];
    assert_eq!((&variables["PGSSLMODE"], &variables["DATABASE_URL"]), (&"verify-full".into(), &"".into()));
    for (name, function) in functions(&template) {
        let own = function["Properties"]["Environment"]["Variables"].as_mapping().unwrap();
        for variable in ["PGSSLMODE", "DATABASE_URL", "PGPASSWORD"] {
            assert!(!own.contains_key(variable), "{name} has {variable}");
        }
    }
    assert!(!include_str!("../../template.yaml").contains("PGPASSWORD"));
}

#[test]
fn each_alarm_is_sent_and_shown_and_has_a_section_in_the_runbook() {
    let template = yaml("template.yaml");
    let runbook = include_str!("../../docs/RUNBOOK.md");
    let dashboard = template["Resources"]["SnapshotDashboard"]["Properties"]["DashboardBody"].as_str().unwrap();
    // Nobody else reads it before it is deployed; its `${...}` are in strings.
    serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
    let alarms = resources(&template, "AWS::CloudWatch::Alarm");
    assert!(alarms.len() >= 10);
    for (name, alarm) in alarms {
        let alarm = &alarm["Properties"];
        let description = alarm["AlarmDescription"].as_str().unwrap();
        let section = description.split_once("See docs/RUNBOOK.md, \"").unwrap().1.strip_suffix("\".").unwrap();
        assert!(runbook.lines().any(|line| line == format!("### {section}")), "{name}: no section {section}");
        assert_eq!(alarm["AlarmActions"][0].as_str(), Some("SnapshotAlarmTopic"), "{name}");
        assert!(dashboard.contains(&format!("${{{name}.Arn}}")), "{name} is not on the dashboard");
    }
}

#[test]
fn a_line_of_the_access_log_is_json_and_has_both_request_ids() {
    let template = yaml("template.yaml");
    let format = template["Resources"]["SnapshotApi"]["Properties"]["AccessLogSettings"]["Format"].as_str().unwrap();
    let line: serde_json::Value = serde_json::from_str(format).unwrap();
    assert_eq!(line["requestId"], "$context.requestId");
    assert_eq!(line["functionRequestId"], "$context.integration.requestId");
    assert!(!format.contains('\n'), "it would be several lines");
}

#[test]
fn the_schedule_fires_on_the_first_at_two_utc_and_can_be_disabled() {
    let template = yaml("template.yaml");
    let schedule = &template["Resources"]["MaintenanceStateMachine"]["Properties"]["Events"]["Monthly"];
    assert_eq!(schedule["Type"], "ScheduleV2");
    assert_eq!(schedule["Properties"]["ScheduleExpression"], "cron(0 2 1 * ? *)");
    assert_eq!(schedule["Properties"]["ScheduleExpressionTimezone"], "UTC");
    let Value::Tagged(state) = &schedule["Properties"]["State"] else { panic!("the state is fixed") };
    assert_eq!((state.tag.to_string().as_str(), state.value.as_str()), ("!Ref", Some("ScheduleState")));
    assert_eq!(template["Parameters"]["ScheduleState"]["AllowedValues"][1], "DISABLED");
    // What it gives up is kept.
    let queue = "SnapshotDeadLetterQueue.Arn";
    assert_eq!(schedule["Properties"]["DeadLetterConfig"]["Arn"].as_str(), Some(queue));
    for function in ["RunMaintenanceFunction", "ReportMetricsFunction", "MigrateFunction"] {
        let target = &template["Resources"][function]["Properties"]["DeadLetterQueue"]["TargetArn"];
        assert_eq!(target.as_str(), Some(queue));
    }
}

#[test]
fn the_metrics_that_silence_must_not_hide_are_reported_daily() {
    let template = yaml("template.yaml");
    let schedule = &template["Resources"]["ReportMetricsFunction"]["Properties"]["Events"]["Daily"];
    assert_eq!(schedule["Type"], "ScheduleV2");
    assert_eq!(schedule["Properties"]["ScheduleExpression"], "cron(0 6 * * ? *)");
    assert!(schedule["Properties"].get("State").is_none(), "it is on, whether or not maintenance is");
}

#[test]
fn the_template_sets_only_variables_that_the_service_reads() {
    let template = yaml("template.yaml");
    let config = include_str!("../../src/config.rs");
    let owners = functions(&template).into_iter().map(|(_, function)| &function["Properties"]);
    for owner in owners.chain([&template["Globals"]["Function"]]) {
        for name in owner["Environment"]["Variables"].as_mapping().unwrap().keys() {
            assert!(
                config.contains(&format!("`{}`", name.as_str().unwrap())),
                "{name:?} is not documented in config.rs"
            );
        }
    }
}

#[test]
fn the_state_machine_gets_what_its_definition_names() {
    let definition = include_str!("../../statemachine/maintenance.asl.json");
    let template = yaml("template.yaml");
    let substitutions = &template["Resources"]["MaintenanceStateMachine"]["Properties"]["DefinitionSubstitutions"];
    let given: BTreeSet<&str> = substitutions.as_mapping().unwrap().keys().map(|name| name.as_str().unwrap()).collect();
    let named = definition.split("${").skip(1).map(|rest| rest.split_once('}').unwrap().0);
    assert_eq!(named.collect::<BTreeSet<_>>(), given);
}
