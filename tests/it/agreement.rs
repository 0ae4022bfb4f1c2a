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

/// The template's functions: resource name and resource.
fn functions(template: &Value) -> Vec<(&str, &Value)> {
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let resources = resources.map(|(name, resource)| (name.as_str().unwrap(), resource));
    resources.filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function").collect()
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

#[test]
fn nobody_can_trigger_or_read_anything_without_a_signature() {
    let template = yaml("template.yaml");
    let auth = &template["Resources"]["SnapshotApi"]["Properties"]["Auth"];
    assert_eq!(auth["DefaultAuthorizer"], "AWS_IAM");
    assert_eq!(auth["EnableIamAuthorizer"], true);
    for (name, function) in functions(&template) {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            assert!(event["Properties"].get("Auth").is_none(), "{name} has a route with an authorizer of its own");
            if event["Type"] == "HttpApi" {
                // Else SAM would put the route on an API of its own making, which asks for nothing.
                let Value::Tagged(api) = &event["Properties"]["ApiId"] else { panic!("{name} is on no API of ours") };
                assert_eq!((api.tag.to_string().as_str(), api.value.as_str()), ("!Ref", Some("SnapshotApi")));
            }
        }
        assert!(function["Properties"].get("FunctionUrlConfig").is_none(), "{name} can be reached past the API");
    }
}

#[test]
fn the_schedule_fires_on_the_first_at_two_utc_and_can_be_disabled() {
    let template = yaml("template.yaml");
    let schedule = &template["Resources"]["RunMaintenanceFunction"]["Properties"]["Events"]["Monthly"];
    assert_eq!(schedule["Type"], "ScheduleV2");
    assert_eq!(schedule["Properties"]["ScheduleExpression"], "cron(0 2 1 * ? *)");
    assert_eq!(schedule["Properties"]["ScheduleExpressionTimezone"], "UTC");
    let Value::Tagged(state) = &schedule["Properties"]["State"] else { panic!("the state is fixed") };
    assert_eq!((state.tag.to_string().as_str(), state.value.as_str()), ("!Ref", Some("ScheduleState")));
    assert_eq!(template["Parameters"]["ScheduleState"]["AllowedValues"][1], "DISABLED");
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
    let variables = template["Globals"]["Function"]["Environment"]["Variables"].as_mapping().unwrap();
    let config = include_str!("../../src/config.rs");
    for name in variables.keys() {
        assert!(config.contains(&format!("`{}`", name.as_str().unwrap())), "{name:?} is not documented in config.rs");
    }
}
