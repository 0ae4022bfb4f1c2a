"""Writes template.yaml as CloudFormation gets it: SAM's resources expanded, globals merged.

    transform.py TEMPLATE OUT.json

Checks of the template alone miss what SAM adds, and what no function says for itself. Fails when a route of the API came out
without an authorizer: the scanner does not notice.
"""

import json
import sys

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class NoManagedPolicies:
    """The template names policies by their ARN, so there are no names to look up in an account."""

    def load(self):
        return {}


def open_routes(template):
    """Method and path of each route that asks for nothing; every API's."""
    apis = [r for r in template["Resources"].values() if r["Type"] == "AWS::ApiGatewayV2::Api"]
    for api in apis:
        for path, methods in api["Properties"]["Body"]["paths"].items():
            for method, operation in methods.items():
                # Else it is an intrinsic function around operations, and this must learn to look inside.
                assert isinstance(operation, dict), f"{path}: {method}"
                required = operation.get("security", [])
                if not required or {} in required or any("NONE" in one for one in required):
                    yield f"{method.upper()} {path}"


def main(source, out):
    with open(source, encoding="utf-8") as file:
        template = yaml_parse(file.read())
    # `sam package` puts the addresses of the uploads here; the translator takes no local files.
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/code.zip"
    for resource in template["Resources"].values():
        if "DefinitionUri" in resource.get("Properties", {}):
            resource["Properties"]["DefinitionUri"] = "s3://bucket/definition.json"
    transformed = transform(template, {}, NoManagedPolicies())
    with open(out, "w", encoding="utf-8") as file:
        json.dump(transformed, file, indent=1)

    routes = sum(len(methods) for r in transformed["Resources"].values() if r["Type"] == "AWS::ApiGatewayV2::Api"
                 for methods in r["Properties"]["Body"]["paths"].values())
    refused = list(open_routes(transformed))
    print(f"{len(transformed['Resources'])} resources, {routes} routes, {len(refused)} of them without an authorizer")
    return f"anybody may call: {', '.join(refused)}" if refused or not routes else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
