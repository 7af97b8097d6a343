"""Everyday requests that are no module's task in particular: what "none of them", and common words, look like.

Written for psserve; no data set's sentences are among them, so that data sets can measure it.
"""

from __future__ import annotations

BACKGROUND = """\
Hello! How are you today?
Good morning, I would like some help please.
Hi there
Thanks a lot, that is all for now.
Thank you, you were very helpful.
Sorry, I did not understand that. Can you say it again?
Yes, please go on.
No, that is not what I meant.
Okay, what should we do next?
Who are you and what can you do?
Are you a human or a machine?
What is your opinion about this?
Can you tell me a little more about it?
Tell me something interesting that I do not know yet.
Tell me a joke about a dog and a cat.
Write a short poem about the sea in winter.
Write a story for children about a brave little dragon.
Write a letter to my landlord about the broken heating.
Write an email to my boss to say that I am ill today.
Draft a birthday card for my grandmother who turns eighty.
Give me five ideas for a name for a new coffee shop.
Give me some advice for a job interview next week.
Give me a summary of the following article in three sentences.
Summarise the plot of Romeo and Juliet.
Explain photosynthesis to a ten year old.
Explain the difference between a virus and a bacterium.
Explain in simple words how a rainbow is made.
Describe the painting of the Mona Lisa.
Describe the taste of an orange to somebody who never had one.
Compare living in a city with living in the country.
Compare electric cars and petrol cars.
List the planets of the solar system.
List three good reasons to learn to play the piano.
List the ingredients that go into a good vegetable soup.
Name a famous scientist from the nineteenth century.
Name all the countries that have a border with Austria.
What is the capital of Australia?
What is the meaning of the word serendipity?
What is the tallest mountain in Africa?
What is the best way to learn a new language?
What is the difference between weather and climate?
What are the symptoms of a cold?
What are the rules of tennis?
What are some good films to watch with the family?
What should I wear to a wedding in the summer?
What should I do if I lose my passport abroad?
What happened in the year 1989?
What does a lawyer do all day?
What does it mean when a dog wags its tail?
What time does the museum open on Sundays?
What kind of music did people listen to in the sixties?
What would you say to a friend who is sad?
Which season do you like best, and why?
Which is healthier, tea or coffee?
Which book should I read first if I like history?
Who wrote the novel War and Peace?
Who invented the telephone?
Who was the first person on the moon?
Who won the world cup in 2014?
Where can I find a good restaurant near the station?
Where do penguins live?
Where should I go for a holiday in the spring?
Where does the word robot come from?
When was the Eiffel Tower built?
When is the best time to plant tomatoes?
When do the schools close for the summer?
Why is the sky blue?
Why do cats sleep so much?
Why did the Roman Empire fall?
Why is bread getting more expensive?
Why should I trust you?
How do I get rid of a headache?
How do I tie a tie?
How do I clean a white shirt with a wine stain?
How do airplanes stay in the air?
How does a bank make money?
How does the heart work?
How long does it take to walk to the lake?
How long should I boil an egg?
How far is it from the earth to the sun?
How old is the oldest tree in the world?
How much water should a person drink in a day?
How much does it cost to send a parcel to Canada?
How many people live in India?
How many bones are there in the human body?
How often should I water my plants?
How can I sleep better at night?
How can I save money on my electricity bill?
How would you explain the internet to someone from the past?
Is it safe to eat raw mushrooms?
Is it true that goldfish have a short memory?
Is there a doctor here who speaks French?
Are there any trains to the airport after midnight?
Are bats birds?
Do I need a visa to travel to Brazil?
Do you know a good dentist in this town?
Does honey ever go bad?
Did the ancient Greeks have schools?
Can I take my dog on the bus?
Can you recommend a podcast about economics?
Can you correct the spelling in this paragraph?
Can you check whether this sentence is right?
Can you make this text shorter and more polite?
Could you rewrite the second part so that it sounds friendlier?
Would it be possible to change my appointment to Friday?
Will there be an election this year?
Should I buy a house or rent a flat?
Shall we play a game?
Please help me to plan a party for twenty guests.
Please read this contract and tell me if there is anything wrong with it.
Please remind me what we talked about last time.
Find a synonym for the word beautiful.
Find the mistakes in the text below.
Make a plan for a week of training before a marathon.
Make a list of things to pack for a camping trip.
Show me the way to the nearest hospital.
Show me how to draw a horse.
Tell me about the history of the Ottoman Empire.
Tell me what you think about modern art.
Create a table of the largest companies in Europe.
Create a slogan for a bicycle repair service.
Suggest a present for my brother who likes fishing.
Suggest a healthy breakfast without sugar.
Turn these notes into a proper report.
Turn the following list into a paragraph.
Put these names into alphabetical order.
Check this text for mistakes in grammar.
Answer the question in one sentence.
Think of a riddle with the answer shadow.
It is too warm in here, is it not?
Stop, I have changed my mind.
I am looking for a used car that does not cost too much.
I am afraid of flying, what helps?
I am writing an essay on climate change and need three sources.
I have a sore throat and a fever since yesterday.
I have a meeting tomorrow and I am not prepared at all.
I need a new password for my account.
I need to return a pair of shoes that are too small.
I want to cancel my subscription.
I want to learn how to swim.
I would like to open a savings account.
I would like to know more about your prices.
I forgot where I left my keys.
I think my neighbour is angry with me.
I lost my credit card, please block it.
I bought a lamp in your shop and it does not work.
I cannot log in to the website any more.
I feel tired all the time.
My computer is very slow, what can I do?
My daughter does not want to go to school.
My flight was cancelled, do I get my money back?
My phone does not charge any more.
My parcel has not arrived yet, where is it?
My manager gave me a project that I do not understand.
We are planning a trip to Japan in the autumn.
We had a great time in the mountains last weekend.
The printer in the office shows a red light.
The patient is a man of fifty years with pain in the chest.
The train was late, so we missed the concert.
The company made a profit of three million last year.
The law says that every tenant may keep a small pet.
There is a strange noise in my car when I brake.
There was once a king who had three sons.
It was raining when they left the house.
He said that he would come back in an hour.
She opened the door and looked into the dark garden.
They decided to sell the farm and to move to the coast.
This is the most beautiful place that I have ever seen.
That sounds good to me.
Let us talk about something else.
In my opinion the second version is better than the first one.
According to the newspaper the bridge will be closed for two months.
After the war the city was built again within ten years.
Because of the storm all ferries were stopped.
Not sure, maybe later.
hey
hello again
thx, bye
good night
ok cool
lol that was funny
never mind
capital of Peru
meaning of "ubiquitous"
best phone under 300 dollars
cheap hotels near the beach
cats or dogs?
is the shop open now
ur opinion on tattoos?
what r u up to
why is my cat sneezing
how to become a pilot
tips for better sleep
Flight 714 is three hours late, what are my rights?
My invoice of 45 dollars is wrong.
Two weeks ago I sent you a complaint and nobody has answered.
In 1969 two men walked on the moon for the first time.
The film lasts 3 hours and is rated 8 out of 10.
Our house was built in 1912 and has 2 floors.
I am 52 years old and have pain in my left knee.
The contract from 2018 has 40 pages and 3 annexes.
Chapter 4 tells how the 12 knights meet their king.
My son is 7 and afraid of the dark.
I have been married for 15 years and we fight about small things.
Which of the 50 states is the largest?
What were the 3 main causes of the First World War?
Who scored in the 90th minute of the final?
Is it healthy to fast for 16 hours?
Are 2 cups of coffee a day too much?
Can a 16 year old work in a bar?
Room 204 smells of smoke.
Order number 5581 never came, I want my money back.
I paid 20 euros too much at your hotel.
Tell me the story of the three little pigs.
Top 10 sights of New York
5 reasons to visit Norway
Name 3 inventions of the Romans.
Give me 4 titles for my blog post about hiking.
Write 2 sentences about the importance of water.
Describe your perfect day in 50 words.
Explain inflation with an example from daily life.
Explain how a vaccine works.
Explain the rules of offside in football.
What is the theory of relativity about?
What is the largest animal that ever lived?
What is the plot of the second Star Wars film?
What is love?
What is a mortgage and how does it work?
What are black holes made of?
What did Napoleon do on Elba?
What makes a good leader?
What should I say in a speech at my best friend's wedding?
What should I feed a young hedgehog?
What causes earthquakes?
Who is the president of France?
Who was Cleopatra's father?
Who would win, a lion or a tiger?
Where is the lost city of Atlantis?
Where can I have my watch repaired?
Where do I vote?
When did the dinosaurs die out?
When is Easter this year?
When will the roadworks be finished?
Why do leaves turn red in autumn?
Why was my application turned down?
Why are my tomatoes rotting from below?
Why is the sea salty?
How do I tell my parents that I failed the exam?
How do I get from the airport to the old town?
How do bees make honey?
How does a fridge work?
How did the Titanic sink?
How strong is the coffee here?
How dangerous are jellyfish?
How high is the risk of a second operation?
How was your weekend?
How can I stop biting my nails?
How can we protect the rain forest?
How should I invest my savings?
How important is breakfast?
Is there life on Mars?
Is my deposit safe in this bank?
Is it rude to leave before the dessert?
Are you able to feel pain?
Are electric scooters allowed on the pavement?
Does smoking cause baldness?
Did Shakespeare really write all his plays?
Has the museum changed its opening hours?
Can you keep a secret?
Can you help me choose a name for our baby?
Can you explain this paragraph from the contract?
Can I deduct my desk from my taxes?
Can I plant roses in a pot?
Can plants hear?
Could you proofread my cover letter?
Could you give me feedback on this essay?
Would you rather live in the past or in the future?
Should children have mobile phones at school?
Should I see a doctor about this rash?
Please summarise our discussion in a few bullet points.
Please make this sentence sound more formal.
Please explain the second amendment to me.
Please close my account and delete my data.
Write a review of a bad restaurant.
Write a speech for the opening of a school.
Write the first paragraph of a crime novel.
Write a product description for a wooden chair.
Write a thank-you note to a teacher.
Write an essay on freedom of speech.
Write lyrics for a sad country song.
Create a workout plan for beginners.
Create a character for a fantasy game.
Make this email friendlier.
Make up a legend about a haunted lighthouse.
Show me pictures of northern lights.
Show me the pros and cons of working at home.
Give me a quote by Oscar Wilde.
Give me an example of irony.
Give your honest opinion on my poem.
Define democracy.
Define the term opportunity cost.
Return policy?
Find the topic sentence of this paragraph.
Find out who owns this trademark.
Search for the cause of the error in my argument.
Check whether this clause is legal.
Set out the arguments for and against nuclear power.
Turn this dialogue into a short story.
Change the tone of the text to cheerful.
Send in the clowns is a song from which musical?
Tell me about yourself.
Tell me why people dream.
Tell us what you liked about our service.
Suggest three films for a rainy evening.
Recommend a good dentist.
Classify this review as positive or negative.
Rank these universities by their reputation.
Debate the question whether zoos are cruel.
Imagine that you are a pirate and tell me about your day.
Pretend to be my grandmother.
Continue the story: the lights went out and somebody screamed.
I am bored.
I am so angry with my boss.
I do not like the new design of your website.
I have no idea what to wear.
I have a job interview and I am nervous.
I had a strange dream about my old school.
I hurt my back while lifting a box.
I need advice, my best friend lied to me.
I want to lose weight.
I want to know whether my insurance covers this.
I would like to complain about a waiter.
I like the way you explained that.
I wonder what it is like to be a whale.
It does not work, I tried everything.
My dog ate chocolate, is that bad?
My laptop screen stays black after the update.
My neighbour plays the drums at night, what can I do?
My skin is dry in winter.
My visa expires soon.
Our teacher says that Pluto is not a planet.
The battery of my car is dead.
The cake was too sweet for me.
The meeting was a waste of time.
The new mayor promised more parks.
The sofa arrived with a scratch.
The team lost again because of a bad referee.
The weather has been strange for years because of climate change.
He never calls me back.
She plays the violin in an orchestra.
They sell everything from books to bicycles.
We moved to a new flat and love it.
We talked on the phone for hours about our childhood.
You are wrong about that.
Once upon a time a shepherd found a golden flute.
Better late than never.
As far as I know the law was changed last year.
If I were you I would talk to her.
Nobody knows who built the stone circle.
Scientists have found a new kind of frog in the jungle.
Shares of the car maker fell after the news.
The accused was seen near the scene of the crime.
Apply the cream twice a day and avoid the sun.
What happened in the world today?
Today is my birthday.
I feel better today than yesterday.
Tonight we celebrate that my sister has passed her exam.
Please be honest with me.
Could you please be a little more precise?
Please choose one of the two titles for me.
Please read this for me and say what it means.
What is going on in politics right now?
I am on holiday until Monday.
On Friday the town hall is closed.
I have an exam on Tuesday and am afraid of it.
On my way to work I saw an accident.
Tomorrow I begin a new job.
We meet every Wednesday to talk about old films.
I need it by tomorrow at the latest.
What's new?
What's wrong with this sentence?
It's been a long day.
Let's start again from the beginning.
How many people believe in ghosts?
How many years does it take to become a judge?
How many of these claims are true?
How much sugar is healthy?
How much should I tip in Spain?
How much of the ocean has been explored?
How often do elephants sleep?
How old was Mozart when he died?
Give me more time.
Give him my best wishes.
Add more detail to the second paragraph.
Set a good example for your children.
Take the blame for once.
Which one do you like more?
My brother has fewer friends than I have.
The house on the hill has been empty for years.
There is a hole in the roof, and the walls are damp.
Are there wolves in this forest?
Is a whale a fish?
At the end of the day it is your decision.
The office is a mess, and nobody cares.
Show me that you are sorry.
Start with the most important point.
For whom was this monument made?
Please apologise for me.
""".splitlines()
