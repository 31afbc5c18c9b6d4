"""Makes, at a moto server that checks signatures from its sixth call on, a user,
a role and a session of it, and prints their credentials."""

import json
import sys

import boto3


def policy(**more):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **more}]})


def client(name, key, secret):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)


iam = client("iam", "any", "any")
iam.create_user(UserName="ada")
iam.create_role(RoleName="gpu", AssumeRolePolicyDocument=policy(Action="sts:AssumeRole", Principal={"AWS": "*"}))
for put, of in ((iam.put_user_policy, {"UserName": "ada"}), (iam.put_role_policy, {"RoleName": "gpu"})):
    put(PolicyName="all", PolicyDocument=policy(Action="*", Resource="*"), **of)
key = iam.create_access_key(UserName="ada")["AccessKey"]
sts = client("sts", key["AccessKeyId"], key["SecretAccessKey"])
session = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/gpu", RoleSessionName="i-0abc")["Credentials"]
print(json.dumps({
    "user": [key["AccessKeyId"], key["SecretAccessKey"], ""],
    "session": [session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]],
}))
