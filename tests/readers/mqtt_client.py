"""A client of the Eclipse Foundation's making: takes a command through MQTT 5's own request and
response, and says what it heard as one JSON document on stdout. tests/mqtt/ looks at it.

Usage: mqtt_client.py PORT ROOT, with ROOT as reticle/v1/lab/box-1.
"""

import json
import sys
import threading
from datetime import datetime, timezone

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, root = int(sys.argv[1]), sys.argv[2]
answers_under = f"{root}/reply/paho"
retained, answers = {}, []
ready, answered = threading.Event(), threading.Event()


def on_connect(client, _userdata, _flags, reason, _properties):
    assert reason == 0, reason
    client.subscribe(f"{root}/#", qos=1)


def on_subscribe(_client, _userdata, _mid, _reasons, _properties):
    ready.set()


def on_message(_client, _userdata, message):
    if message.topic == answers_under:
        said = json.loads(message.payload)
        correlation = message.properties.CorrelationData.decode()
        answers.append({"status": said["status"], "correlation": correlation})
        if said["status"] in ("successful", "failed"):
            answered.set()
    elif message.retain:
        retained[message.topic.removeprefix(f"{root}/")] = json.loads(message.payload)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", port)
client.loop_start()
assert ready.wait(30), "no subscription"
properties = Properties(PacketTypes.PUBLISH)
properties.ResponseTopic = answers_under
properties.CorrelationData = b"plate 7"
properties.MessageExpiryInterval = 30
now = datetime.now(timezone.utc).isoformat()
asked = json.dumps({"status": "init", "at": now})
client.publish(f"{root}/cmd/pause/paho", asked, qos=1, properties=properties)
assert answered.wait(30), f"no answer; heard {answers}"
client.loop_stop()
print(json.dumps({"retained": retained, "answers": answers}))
