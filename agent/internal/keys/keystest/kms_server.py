"""Runs moto's server with the one thing that it leaves out of KMS.

moto 5.2.5 does not know MessageType=DIGEST: it hashes what it is given once
more. AWS KMS signs a digest as it is, and refuses one of another length; so does
this.
"""

import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from moto.kms import responses
from moto.kms.utils import ECDSAPrivateKey
from moto.server import main

answer = responses.KmsResponse.sign
sign_raw = ECDSAPrivateKey.sign
digest = False


def sign_request(self):
    global digest
    digest = self._get_param("MessageType") == "DIGEST"
    return answer(self)


def sign(self, message, signing_algorithm):
    if not digest:
        return sign_raw(self, message, signing_algorithm)
    if signing_algorithm != "ECDSA_SHA_256" or len(message) != 32:
        raise ValueError("a digest of %d bytes for %s" % (len(message), signing_algorithm))
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


responses.KmsResponse.sign = sign_request
ECDSAPrivateKey.sign = sign
main(sys.argv[1:])
