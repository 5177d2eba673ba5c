"""A mail server with STARTTLS and passwords, for the tests: says its port, then each letter that it takes as a line of JSON.

smtp_server.py CERTIFICATE KEY

Nobody gets anything without TLS and without the password. `bounce@` is nobody's address, and `later@` is told to come again the
first time.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Letters:
    def __init__(self):
        self.asked = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("bounce@"):
            return "550 5.1.1 No such mailbox"
        if address.startswith("later@") and address not in self.asked:
            self.asked.add(address)
            return "451 4.7.1 Greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        letter = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "user": session.auth_data.decode(),
            "letter": envelope.content.decode(),
        }
        print(json.dumps(letter), flush=True)
        return "250 OK"


def known(server, session, envelope, mechanism, data):
    right = data.login == b"holdshort" and data.password == b"correct horse"
    return AuthResult(success=right, handled=right, auth_data=data.login if right else None)


async def main(certificate, key):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    letters = Letters()

    def connection():
        return SMTP(
            letters,
            hostname="mail.test",
            tls_context=tls,
            require_starttls=True,
            auth_required=True,
            auth_require_tls=True,
            authenticator=known,
        )

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
